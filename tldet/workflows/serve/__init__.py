"""``tldet serve``: a detector as an HTTP service."""
