"""``python -m benchmarks quality``: AP by training time on five small datasets."""
