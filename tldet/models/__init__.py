"""Backbones, necks, heads and detectors, independent of files, datasets and training."""
