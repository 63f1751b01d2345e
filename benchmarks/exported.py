"""Prediction with exported detectors, compared with the checkpoint or another file, in separate processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import HOW, Served
from benchmarks.report import Memory, Row
from benchmarks.suites import Bench
from tldet.errors import ConfigError
from tldet.exporting.verify import TOLERANCES, Comparison, compare_detections
from tldet.inference.loading import load
from tldet.inference.predictor import Predictor
from tldet.inference.runtimes.exported import EXPORTED_SUFFIXES, ExportedDetector
from tldet.system.inputs import file_hash, is_file
from tldet.text import counted

FILE_SUFFIXES = (*EXPORTED_SUFFIXES, ".pt")
WITHOUT_TORCH = (".onnx", ".xml")


def compare_files(bench: Bench, files: Sequence[Path], images: Sequence[Any]) -> list[Row]:
    """Compare each detector with the first one; ONNX and OpenVINO files also run without torch.

    Args:
        bench: the settings.
        files: checkpoints and exported detectors; a single exported detector is compared with its checkpoint.
        images: (H, W, 3) uint8 RGB, all of one size.

    Raises:
        ConfigError: a single file has no checkpoint in its folder to compare it with.
        CheckpointError: a file cannot be read.
    """
    first, *others = files if len(files) > 1 else [_checkpoint_of(files[0]), *files]
    inputs = str(bench.folder / "images.npy")
    np.save(inputs, np.stack(images))
    reference = load(first, "cpu")
    rows = []
    for path in others:
        bench.show(f"{path.name}: comparing detections")
        checks = _checks(reference, load(path, "cpu"), images)
        functions = [("benchmarks.own:predicting_on", path.name)]
        if path.suffix in WITHOUT_TORCH:
            functions.append(("benchmarks.own:predicting_without_torch", f"{path.name} without torch"))
        for function, name in functions:
            rows.append(_file_row(bench, name, (function, path), first, inputs, checks, images))
    return rows


def _checkpoint_of(path: Path) -> Path:
    """Return the checkpoint of an exported detector from the same folder."""
    model = load(path, "cpu").model if path.suffix in EXPORTED_SUFFIXES else None
    stated = model.metadata if isinstance(model, ExportedDetector) else {}
    checkpoint = path.with_name(str(stated.get("checkpoint")))
    if not is_file(checkpoint) or file_hash(checkpoint) != stated.get("checkpoint_sha256"):
        raise ConfigError(f"--model {path}: specify a second --model to compare it with, such as its checkpoint")
    return checkpoint


def _checks(reference: Predictor, predictor: Predictor, images: Sequence[Any]) -> dict[str, Any]:
    tolerance = TOLERANCES.get(predictor.precision.name, TOLERANCES["fp16"])
    found = compare_detections(
        reference.predict(list(images), 0.0), predictor.predict(list(images), 0.0), tolerance, Comparison()
    )
    precisions = f"{predictor.precision.describe()}, compared with {reference.precision.describe()}"
    return {"precision": precisions, "detections": found.reference, "matching detections": found.fraction}


def _file_row(
    bench: Bench,
    name: str,
    side: tuple[str, Path],
    first: Path,
    inputs: str,
    checks: dict[str, Any],
    images: Sequence[Any],
) -> Row:
    function, path = side
    with (
        Served(function, file=str(path), inputs=inputs) as ours,
        Served("benchmarks.own:predicting_on", file=str(first), inputs=inputs) as theirs,
    ):
        comparison = bench.compare(name, ours, theirs, 12, warmup=2, self_timed=True)
    height, width = images[0].shape[:2]
    each = f"image of {height}x{width}" if len(images) == 1 else f"batch of {counted(len(images), 'image')}"
    return Row(name, first.name, comparison, each, Memory(ours.peak_mb, theirs.peak_mb, HOW), None, checks)
