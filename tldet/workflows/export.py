"""``tldet export``: a checkpoint as a file for other runtimes, verified against the checkpoint."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

from tldet.config import build_settings
from tldet.data.loader import LoaderSettings, collate, eval_batches, padded_size
from tldet.data.split_paths import evaluation_split
from tldet.engine.precision import Precision
from tldet.errors import ConfigError, DataError
from tldet.exporting.files import OPSET, SUFFIXES, write
from tldet.exporting.graph import INPUTS, GraphOptions, output_names, prepare, trace
from tldet.exporting.verify import TOLERANCES, Comparison, compare
from tldet.inference.predictor import Predictor
from tldet.inference.runtimes.base import FORMAT
from tldet.inference.runtimes.exported import ExportedDetector, load_exported
from tldet.inference.sources import find_sources
from tldet.models.detector import Detector
from tldet.models.postprocess import set_nms
from tldet.plugins import require_components
from tldet.structures.batch import Batch
from tldet.system.output import check_output, make_folder
from tldet.transfer.restore import restore
from tldet.workflows.training.parts import EvalSettings, Validation, build_dataset, check_images, versions

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
Format = Literal["onnx", "openvino", "torch"]
FORMATS = tuple(SUFFIXES)
PRECISIONS = ("fp32", "fp16")
MAX_DROP = {"fp32": 0.001, "fp16": 0.003}
COMPARED = 16  # images whose detections are compared one by one
THRESHOLDS = ("score", "nms_iou", "nms_per_class", "keep", "pre_nms", "post_nms")


@dataclass
class ExportResult:
    """Result of an export.

    Attributes:
        path: the file.
        comparison: detections of the file and of the checkpoint on the same images; None if not verified.
        before: AP of the checkpoint; None without a dataset.
        after: AP of the file.
        passed: False if the file differs by more than is allowed.
        reason: of a failure.
    """

    path: Path
    comparison: Comparison | None = None
    before: float | None = None
    after: float | None = None
    passed: bool = True
    reason: str = ""


def export(
    checkpoint: str | Path,
    format: Format = "onnx",
    *,
    out: str | Path | None = None,
    precision: Literal["fp32", "fp16"] = "fp32",
    dynamic: Sequence[str] = (),
    raw: bool = False,
    data: str | Path | None = None,
    images: str | Path | None = None,
    verify: bool = True,
    max_drop: float | None = None,
    nms_per_class: bool | None = None,
    console: Console | None = None,
) -> ExportResult:
    """Export a detector, run the file on real images, and compare it with the checkpoint.

    Args:
        checkpoint: a tldet checkpoint.
        format: ``onnx``, ``openvino`` or ``torch`` (a ``torch.export`` file).
        out: output directory; by default that of the checkpoint.
        precision: ``fp32``, or ``fp16`` for weights, convolutions and matrix products in half precision.
        dynamic: ``batch`` for any number of images, ``size`` for any height and width that are multiples of 32; by
            default one image of the most frequent input size of the verification images.
        raw: export the network without decoding; the file is not verified.
        data: COCO annotations or a dataset folder for verification; by default the validation split of the checkpoint.
        images: image directory of ``data``; without ``data``, an image or a folder of images for verification.
        verify: False skips verification.
        max_drop: largest allowed drop of AP; None for 0.001 in fp32 and 0.003 in fp16.
        nms_per_class: apply NMS per class (True) or across classes (False); None keeps the setting of the checkpoint.
        console: shows the table of AP.

    Raises:
        TldetError: the checkpoint, an option or the images are invalid, a package is missing, or the file cannot be
            written.
    """
    _check_options(format, precision, dynamic)
    path = Path(out or Path(checkpoint).parent) / (Path(checkpoint).stem + ("_raw" if raw else "") + SUFFIXES[format])
    make_folder(path.parent)
    check_output(path)
    detector, state = restore(checkpoint)
    if nms_per_class is not None:
        set_nms(detector, per_class=nms_per_class)
    work = _Work(Path(checkpoint), detector, state, data, images, verify and not raw)
    size = work.input_size()
    options = GraphOptions(size, "batch" in dynamic, "size" in dynamic, raw, precision)
    result = ExportResult(path)
    if work.dataset is not None:
        result.before = work.average_precision(detector)
    log.info("input %dx%d, format %s, precision %s", *size, format, precision)
    exported, _ = restore(checkpoint)
    if nms_per_class is not None:
        set_nms(exported, per_class=nms_per_class)
    prepare(exported, precision)
    names = INPUTS, output_names(exported, options)
    metadata = _metadata(work, options, result.before)
    write(format, trace(exported, options), path, names, metadata)
    log.info("saved to %s (%.1f MB)", path, path.stat().st_size / 1e6)
    if work.verify:
        _verify(result, work, precision, MAX_DROP[precision] if max_drop is None else max_drop, console)
    return result


def _check_options(format: str, precision: str, dynamic: Sequence[str]) -> None:
    if format not in FORMATS:
        raise ConfigError(f"format {format!r}: must be {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r}: must be {', '.join(PRECISIONS)}")
    if unknown := [name for name in dynamic if name not in ("batch", "size")]:
        raise ConfigError(f"dynamic {unknown[0]!r}: must be 'batch', 'size' or both")


class _Work:
    """A checkpoint and the images for its verification."""

    def __init__(
        self,
        checkpoint: Path,
        detector: Detector,
        state: dict[str, Any],
        data: str | Path | None,
        images: str | Path | None,
        verify: bool,
    ) -> None:
        self.checkpoint, self.detector, self.state = checkpoint, detector, state
        self.bounds: dict[str, Any] = state["meta"]["input"]
        self.verify, self.dataset = verify, cast(Any, None)
        self.files: list[Path] = []
        self.loader = build_settings(LoaderSettings, (state["config"].get("data") or {}).get("loader") or {})
        if verify and images is not None and data is None:
            self.files = [source.path for source in find_sources([str(images)])[0] if source.kind == "image"][:COMPARED]
            if not self.files:
                raise DataError(f"{images}: no image to verify the export on")
        elif verify:
            self.dataset = self._dataset(data, images)

    def _dataset(self, data: str | Path | None, images: str | Path | None) -> Any:
        section = dict(((self.state["config"].get("data") or {}).get("val")) or {})
        if data is not None:
            found = evaluation_split(Path(data), images)
            section = {"type": "CocoDataset", "annotations": str(found.annotations), "images": str(found.images)}
            section["transforms"] = [{"type": "Resize", **self.bounds}]
        elif not section:
            raise DataError(f"{self.checkpoint}: names no validation data; give --data or --images, or --no-verify")
        else:
            require_components(self.checkpoint, self.state, "data.val")
        dataset = build_dataset(section, 0, tuple(self.state["meta"]["class_names"]))
        check_images(dataset)
        return dataset

    def batches(self) -> Iterator[Batch]:
        """Yield the images that are compared one by one."""
        if self.dataset is None:
            predictor = Predictor(
                self.detector, self.state["meta"]["category_ids"], **self.bounds, precision=Precision()
            )
            for path in self.files:
                yield collate([predictor.sample(predictor.open(path))])
            return
        seen = 0
        for batch in eval_batches(self.dataset, 1):
            yield batch
            seen += len(batch)
            if seen >= COMPARED:
                return

    def input_size(self) -> tuple[int, int]:
        """Return the most frequent padded size of the images; without images, that of a wide one."""
        if self.dataset is not None:
            counted = Counter(padded_size((int(h), int(w))) for h, w in np.asarray(self.dataset.input_sizes))
            return counted.most_common(1)[0][0]
        if self.files:
            counted = Counter((batch.images.shape[2], batch.images.shape[3]) for batch in self.batches())
            return counted.most_common(1)[0][0]
        return padded_size((self.bounds["short"], self.bounds["long"]))

    def average_precision(self, model: Any) -> float:
        """Evaluate a detector on the dataset."""
        kind = (self.state["config"].get("evaluation") or {}).get("type", "bbox")
        validation = Validation(self.dataset, self.loader, EvalSettings(kind), losses=False)
        with torch.inference_mode():
            return float(validation(model)["AP"])


def _metadata(work: _Work, options: GraphOptions, before: float | None) -> dict[str, Any]:
    head: Any = work.detector.head
    meta = work.state["meta"]
    masks = {"threshold": head.mask_threshold, "paste": head.mask_paste} if work.detector.predicts_masks else None
    with work.checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)
    return {
        "format": FORMAT,
        "kind": "raw" if options.raw else "detector",
        "class_names": list(meta["class_names"]),
        "category_ids": list(meta["category_ids"]),
        "input": dict(work.bounds),
        "size": None if options.dynamic_size else list(options.size),
        "batch": None if options.dynamic_batch else 1,
        "precision": options.precision,
        "head": type(head).__name__,
        "thresholds": _thresholds(head),
        "masks": masks,
        "versions": versions(),
        "opset": OPSET,
        "checkpoint": work.checkpoint.name,
        "checkpoint_sha256": digest,
        "AP": before,
    }


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _thresholds(head: Any) -> dict[str, Any]:
    """Return the selection settings of every part of a head, by the name of the part."""
    found = {}
    for name, module in head.named_modules():
        settings = getattr(module, "settings", None)
        if is_dataclass(settings) and not isinstance(settings, type):
            values = {key: value for key, value in asdict(settings).items() if key in THRESHOLDS}
            if values:
                found[name or "head"] = values
    return found


def _verify(result: ExportResult, work: _Work, precision: str, max_drop: float, console: Console | None) -> None:
    """Compare the file with the checkpoint, and evaluate it if there is a dataset."""
    exported = load_exported(result.path)
    tolerance, comparison = TOLERANCES[precision], Comparison()
    with torch.inference_mode():
        for batch in work.batches():
            fitted = exported.fitted(batch)
            fitted.original_sizes = fitted.sizes  # boxes stay in pixels of the input
            compare(work.detector.predict(fitted), exported.predict(fitted), tolerance, comparison)
    result.comparison = comparison
    log.info("%s: %s", exported.runtime.name, comparison.describe())
    if comparison.fraction < tolerance.matched:
        result.passed, result.reason = False, f"only {comparison.describe()}; at least {tolerance.matched:.0%} must be"
    if work.dataset is None:
        return
    result.after = work.average_precision(exported)
    assert result.before is not None
    _show(result, exported, console)
    if result.before - result.after > max_drop:
        drop = f"AP drops by {result.before - result.after:.4f} (allowed: {max_drop:g})"
        result.passed, result.reason = False, f"{drop}; {_cause(exported, comparison, tolerance.matched)}"


def _cause(exported: ExportedDetector, comparison: Comparison, least: float) -> str:
    """Return the stage that causes a drop: the graph, or the resize of images that do not fit its size."""
    if comparison.fraction >= least and exported.size is not None:
        return "on equal inputs the detections are the same, so the fixed input size is the cause: try --dynamic size"
    return "the detections differ on equal inputs, so the graph is the cause"


def _show(result: ExportResult, exported: ExportedDetector, console: Console | None) -> None:
    if console is None:
        return
    from rich.table import Table

    table = Table("", "AP", title=result.path.name)
    table.add_row("checkpoint (torch fp32)", f"{result.before:.4f}")
    table.add_row(exported.runtime.name, f"{result.after:.4f}")
    console.print(table)
