"""Tensor names of other toolkits."""
