"""Changes of a network that is already built: folded normalization, replaced modules."""
