"""Backbones, necks, heads and the detector they make; nothing here knows of files, data sets or training."""
