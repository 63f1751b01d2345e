"""``tldet report`` and ``tldet compare``: error analysis of a detector, and comparison of detectors."""
