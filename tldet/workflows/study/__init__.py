"""Comparisons at an equal budget: a matrix of runs, what it found, and what that says."""
