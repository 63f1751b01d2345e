"""Counts of a prediction run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tldet.text import counted, html_table


@dataclass(repr=False)
class Summary:
    """Counts and detections of a run.

    Attributes:
        images: number of images.
        frames: number of frames of videos and cameras.
        detections: number of all detections.
        failed: error of each input that could not be read, by path.
        skipped: number of skipped files and folders inside the inputs, by reason.
        damaged: number of packets that could not be decoded, by video path.
        several_frames: paths of images with several frames, of which the first was used.
        incomplete: problems of each video that could be read only in part, by path.
        seconds: total time, seconds.
        resumed: number of inputs that an earlier run completed.
        records: COCO results with ``file_name`` and ``category_name``. Without ``annotations``, ``image_id`` counts
            images and frames from 1, and ``file_name`` is the path (with ``#frame`` for videos). Empty with ``jsonl``:
            the results are in that file.
    """

    images: int = 0
    frames: int = 0
    detections: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    several_frames: list[str] = field(default_factory=list)
    incomplete: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    resumed: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Summary({self.describe()})"

    def _repr_html_(self) -> str:
        classes = Counter(record["category_name"] for record in self.records)
        return html_table(self.describe(), ("class", "detections"), classes.most_common())

    def counts(self) -> str:
        """Describe the numbers of images, frames and detections."""
        parts = [counted(self.images, "image")] if self.images or not self.frames else []
        parts += [counted(self.frames, "frame")] if self.frames else []
        return ", ".join([*parts, counted(self.detections, "detection")])

    def describe(self) -> str:
        """Describe the run in one line."""
        unit = "frames" if self.frames > self.images else "images"
        parts = [self.counts(), f"{(self.images + self.frames) / max(self.seconds, 1e-9):.1f} {unit}/s"]
        parts += [f"{counted(self.resumed, 'input')} already done"] if self.resumed else []
        parts += [f"{counted(len(self.failed), 'input')} could not be read"] if self.failed else []
        several = counted(len(self.several_frames), "image")
        parts += [f"{several} with several frames (the first is used)"] if self.several_frames else []
        parts += [f"{counted(len(self.incomplete), 'video')} incomplete"] if self.incomplete else []
        parts += [f"{counted(sum(self.skipped.values()), 'file')} skipped"] if self.skipped else []
        parts += [f"{counted(sum(self.damaged.values()), 'damaged packet')} skipped"] if self.damaged else []
        return ", ".join(parts)
