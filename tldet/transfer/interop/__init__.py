"""Checkpoints and configs of other toolkits."""
