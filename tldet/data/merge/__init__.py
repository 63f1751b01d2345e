"""Merging of datasets with different classes: pure functions of COCO files."""
