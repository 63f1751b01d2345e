"""Annotation formats: one file per format, each a reader that yields the same records."""
