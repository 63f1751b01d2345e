"""Checks of annotations and image files, for ``tldet check`` and before training."""
