"""A detector of own parts: importing this package registers them."""

from own_parts import augment, backbone, callback, dataset, head

__all__ = ["augment", "backbone", "callback", "dataset", "head"]
