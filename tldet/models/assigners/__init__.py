"""Matching of anchors, locations and proposals to objects."""
