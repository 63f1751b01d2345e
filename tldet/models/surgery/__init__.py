"""Changes of a built network: folded normalization, replaced modules."""
