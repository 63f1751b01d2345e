"""Commands as functions."""
