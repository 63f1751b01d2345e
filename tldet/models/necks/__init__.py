"""Feature pyramids between backbone and head."""
