"""Hand-written kernels, each next to its reference version."""
