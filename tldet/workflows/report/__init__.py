"""``tldet report`` and ``tldet compare``: what a detector gets wrong, and which of two is better."""
