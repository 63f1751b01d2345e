"""Ground truth of an image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tldet.text import counted


class _Known(NamedTuple):
    """Cached properties of the ground truth of an image, so that the host does not read them from a device again.

    Attributes:
        ignore: the tensor that ``objects`` and ``crowds`` describe.
        labeled: the tensor that ``partial`` describes, or None.
        objects: (G,) int64 rows that are objects.
        crowds: (C,) int64 rows that are crowd regions.
        partial: some class was not annotated.
    """

    ignore: Tensor
    labeled: Tensor | None
    objects: Tensor
    crowds: Tensor
    partial: bool

    @classmethod
    def of(cls, ignore: Tensor, labeled: Tensor | None) -> _Known:
        """Read the properties from the tensors."""
        partial = labeled is not None and not bool(labeled.all())
        return cls(ignore, labeled, (~ignore).nonzero().flatten(), ignore.nonzero().flatten(), partial)

    def describes(self, ignore: Tensor, labeled: Tensor | None) -> bool:
        """Return True if the properties are those of these tensors."""
        return self.ignore is ignore and self.labeled is labeled


@dataclass(repr=False)
class Target:
    """Ground truth of one image, in pixels of that image.

    Attributes:
        boxes: (N, 4) float32 xyxy with x1 > x0 and y1 > y0; N may be 0.
        labels: (N,) int64 in 0..K-1.
        ignore: (N,) bool, True for crowd regions and objects that a crop cuts off almost completely; they are
            neither positive nor background.
            An empty tensor ignores nothing.
        image_id: id of the image in its dataset.
        masks: (N, H, W) uint8 of 0 and 1, or None.
        labeled: (K,) bool, True for classes annotated on the image; others may have objects that are not among the
            boxes. None for all.
        spared: (S, 4) xyxy boxes of probable objects of classes that are not annotated, which are not background; a
            two-stage head finds them itself. None for no box.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor = field(default_factory=partial(torch.zeros, 0, dtype=torch.bool))
    image_id: int = 0
    masks: Tensor | None = None
    labeled: Tensor | None = None
    spared: Tensor | None = None
    _known: _Known | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        masks = ", masks" if self.masks is not None else ""
        return f"Target({counted(len(self), 'object')}{masks}, image_id={self.image_id!r})"

    @property
    def known(self) -> _Known:
        """Cached properties of ``ignore`` and ``labeled``, read on first use and kept by :meth:`to`."""
        if self._known is None or not self._known.describes(self.ignore, self.labeled):
            return _Known.of(self.ignore, self.labeled)
        return self._known

    @property
    def partial(self) -> bool:
        """True if some class is not annotated on the image."""
        return self.labeled is not None and self.known.partial

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Target:
        """Return the target on ``device``."""
        moved: dict[str, Any] = {name: t.to(device, non_blocking=non_blocking) for name, t in self._tensors().items()}
        objects, crowds = (one.to(device, non_blocking=non_blocking) for one in self.known[2:4])
        known = _Known(moved["ignore"], moved.get("labeled"), objects, crowds, self.partial)
        return replace(self, **moved, _known=known)

    def pin_memory(self) -> Target:
        """Return the target in pinned memory."""
        pinned: dict[str, Any] = {name: t.pin_memory() for name, t in self._tensors().items()}
        return replace(self, **pinned)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
