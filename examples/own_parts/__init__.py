"""Components of a user package; importing it registers them."""

from own_parts import augment, backbone, callback, dataset, head

__all__ = ["augment", "backbone", "callback", "dataset", "head"]
