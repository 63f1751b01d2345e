"""Options of the dataset that a command reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tldet.workflows.options import described, format_option, option, voc_boxes_option
from tldet.workflows.requests import Request

if TYPE_CHECKING:
    from tldet.data.formats.source import SourceOptions


@dataclass(frozen=True, kw_only=True)
class DataOptions(Request):
    """Options of a dataset in any format; a command declares ``data`` or ``images`` anew to describe its own use."""

    data: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata=described("dataset folder with images and annotations, or an annotation file", metavar="DATA"),
    )
    images: str | Path | None = option("image directory (default: found by file names)", metavar="DIR")
    format: str | None = format_option()
    voc_boxes: Literal["continuous", "inclusive"] | None = voc_boxes_option()

    def source_options(self, classes: str | Path | None = None, *, missing: bool = False) -> SourceOptions:
        """Return the options for reading the annotations.

        Args:
            classes: see :class:`~tldet.data.formats.source.SourceOptions`, as ``missing``.
            missing: images may be missing.
        """
        from tldet.data.formats.source import SourceOptions

        return SourceOptions(self.format, self.voc_boxes or "auto", classes, missing)
