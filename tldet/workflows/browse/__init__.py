"""``tldet browse``: a dataset as a page."""
