"""Result of an evaluation: the twelve COCO metrics and the AP of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tldet.evaluation.protocols.result import ProtocolResult, metric_text
from tldet.system.output import write_json
from tldet.text import counted, html_table

if TYPE_CHECKING:
    from rich.table import Table

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # area ranges
_MOST = 2  # 100 detections per image
_IOU50, _IOU75 = slice(0, 1), slice(5, 6)


def defined(value: float | None) -> float | None:
    """Return a metric, None instead of -1."""
    return None if value is None or value < 0 else float(value)


@dataclass(repr=False)
class CocoResult:
    """Metrics of one evaluation at full precision; -1 if there is no ground truth.

    Attributes:
        AP: mean over IoU 0.50 to 0.95 and over classes; AP50 and AP75 at one IoU.
        APs: objects of less than 32**2 pixels; APm up to 96**2, APl above.
        AR1: largest recall with 1 detection per class and image; AR10, AR100 with more; ARs, ARm, ARl by object size,
            with 100.
        per_class: AP of each class of the ground truth, by name, in order of category id.
        per_class_ap50: AP50 of each class.
        type: "bbox" or "segm".
        engine: "fast" or "pycocotools".
        images: number of evaluated images.
        detections: number of evaluated detections.
        unjudged: number of detections left out because their class is not annotated on their image.
        bbox: result of the boxes, if masks and boxes were evaluated.
        protocols: results of other protocols by name: "custom", "voc", "lvis".
    """

    AP: float = -1.0
    AP50: float = -1.0
    AP75: float = -1.0
    APs: float = -1.0
    APm: float = -1.0
    APl: float = -1.0
    AR1: float = -1.0
    AR10: float = -1.0
    AR100: float = -1.0
    ARs: float = -1.0
    ARm: float = -1.0
    ARl: float = -1.0
    per_class: dict[str, float] = field(default_factory=dict)
    per_class_ap50: dict[str, float] = field(default_factory=dict)
    type: str = "bbox"
    engine: str = "fast"
    images: int = 0
    detections: int = 0
    unjudged: int = 0
    bbox: CocoResult | None = None
    protocols: dict[str, ProtocolResult] = field(default_factory=dict)

    def __repr__(self) -> str:
        boxes = "" if self.bbox is None else f"; bbox AP {metric_text(self.bbox.AP)}"
        over = f"{counted(self.images, 'image')}, {counted(len(self.per_class), 'class', 'classes')}"
        return f"CocoResult({self.type} AP {metric_text(self.AP)}, AP50 {metric_text(self.AP50)}{boxes}; {over})"

    def _repr_html_(self) -> str:
        pairs = {"all": (self.AP, self.AP50)}
        pairs |= {name: (ap, self.per_class_ap50.get(name, -1.0)) for name, ap in self.per_class.items()}
        rows = [(name, *map(metric_text, pair)) for name, pair in pairs.items()]
        note = ", ".join(f"{name} {metric_text(value)}" for name, value in self.numbers().items())
        more = self._more()
        parts = "".join(one._repr_html_() for one in more)
        return html_table(self._title(), ("class", "AP", "AP50"), rows, note) + parts

    def _title(self) -> str:
        left = f"; {self.unjudged} of a class not annotated on its image left out" if self.unjudged else ""
        return f"COCO {self.type}, {counted(self.images, 'image')}, {counted(self.detections, 'detection')}{left}"

    def numbers(self) -> dict[str, float]:
        """Return the twelve metrics by name."""
        return {name: getattr(self, name) for name in METRICS}

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics and ``per_class``; if there are any, ``unjudged``, ``bbox`` and ``protocols``."""
        boxes = {} if self.bbox is None else {"bbox": self.bbox.to_dict()}
        unjudged = {"unjudged": self.unjudged} if self.unjudged else {}
        protocols = {name: one.to_dict() for name, one in self.protocols.items()}
        more = {**unjudged, **boxes, **({"protocols": protocols} if protocols else {})}
        return {**self.numbers(), "per_class": dict(self.per_class), **more}

    def _more(self) -> list[CocoResult | ProtocolResult]:
        """Return the results of the boxes and of other protocols."""
        return [*([self.bbox] if self.bbox is not None else []), *self.protocols.values()]

    def save(self, path: str | PathLike[str]) -> None:
        """Write :meth:`to_dict` as JSON at full precision.

        Raises:
            OutputError: the file cannot be written.
        """
        write_json(Path(path), self.to_dict(), indent=2)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> CocoResult:
        """Restore a result from the output of :func:`dataclasses.asdict`."""
        boxes = kept.get("bbox")
        return cls(**{**kept, "bbox": None if boxes is None else cls.of(boxes)})

    def tables(self) -> list[Table]:
        """Return :meth:`table`, and the tables of the boxes, if both were evaluated, and of other protocols."""
        more = self._more()
        return [self.table(), *(one.table() for one in more)]

    def table(self) -> Table:
        """Return a rich table of the classes and the twelve metrics."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(title=self._title())
        shown.add_column("class")
        shown.add_column("AP", justify="right")
        shown.add_column("AP50", justify="right")
        for name, value in self.per_class.items():
            shown.add_row(Text(name), metric_text(value), metric_text(self.per_class_ap50.get(name, -1.0)))
        shown.add_section()
        shown.add_row("all", metric_text(self.AP), metric_text(self.AP50), style="bold")
        shown.add_section()
        for name in METRICS[2:]:
            shown.add_row(name, metric_text(getattr(self, name)), "")
        return shown


def summarize(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    """Compute the twelve COCO metrics, bit-identical to ``COCOeval.summarize`` of pycocotools.

    Args:
        precision: (IoU, recall, class, area range, most detections); -1 without ground truth.
        recall: (IoU, class, area range, most detections).
    """
    values = [
        mean_defined(precision[:, :, :, _ALL, _MOST]),
        mean_defined(precision[_IOU50, :, :, _ALL, _MOST]),
        mean_defined(precision[_IOU75, :, :, _ALL, _MOST]),
        *(mean_defined(precision[:, :, :, size, _MOST]) for size in (_SMALL, _MEDIUM, _LARGE)),
        *(mean_defined(recall[:, :, _ALL, most]) for most in range(3)),
        *(mean_defined(recall[:, :, size, _MOST]) for size in (_SMALL, _MEDIUM, _LARGE)),
    ]
    return dict(zip(METRICS, values, strict=True))


def class_precision(
    precision: NDArray[np.float64], class_names: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return AP and AP50 of each class; ``precision`` as in :func:`summarize`."""
    columns = [precision[:, :, row, _ALL, _MOST] for row in range(len(class_names))]
    average = {name: mean_defined(column) for name, column in zip(class_names, columns, strict=True)}
    return average, {name: mean_defined(column[_IOU50]) for name, column in zip(class_names, columns, strict=True)}


def mean_over(per_class: Mapping[str, float], names: Sequence[str]) -> float:
    """Return the mean AP over some classes, as if the others were not in the dataset; -1 if none has ground truth.

    A class's AP does not depend on the other classes' objects, so one evaluation serves any group of classes.

    Args:
        per_class: AP of each class by name, at any IoU; -1 without ground truth.
        names: names of the classes.
    """
    return mean_defined(np.array([per_class[name] for name in names if name in per_class], np.float64))


def mean_defined(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not -1; -1 if there are none."""
    evaluated = values[values > -1]
    return float(np.mean(evaluated)) if len(evaluated) else -1.0
