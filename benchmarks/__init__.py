"""Benchmarks against other packages; run from a checkout with ``python -m benchmarks SUITE``."""
