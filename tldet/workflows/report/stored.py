"""Storing of score thresholds and temperature in a checkpoint."""

from __future__ import annotations

from typing import Any

from tldet import checkpoint
from tldet.errors import DataError
from tldet.evaluation.errors.analysis import Analysis
from tldet.system.inputs import real_path
from tldet.workflows.report.request import ReportRequest
from tldet.workflows.report.source import DetectionSource


def save_scores(request: ReportRequest, source: DetectionSource, found: Analysis) -> None:
    """Write copies of the checkpoint with the thresholds and the temperature of the report.

    Raises:
        DataError: there is nothing to store, or the detector is an exported file.
        OutputError: a file cannot be written.
    """
    assert source.checkpoint is not None
    if source.checkpoint.suffix != ".pt":
        raise DataError(
            f"{source.checkpoint}: is an exported detector; store thresholds in its checkpoint, then export that again"
        )
    stored: dict[str, Any] = {}
    if request.save_thresholds:
        stored["thresholds"] = stored_thresholds(found)
    if request.save_temperature:
        if found.temperature is None:
            raise DataError(
                f"{source.name}: a temperature cannot be fitted, because all detections are correct or all are wrong"
            )
        stored["temperature"] = found.temperature
    both = [one for one in (request.save_thresholds, request.save_temperature) if one]
    state = checkpoint.load_checkpoint(source.checkpoint)
    for path in dict.fromkeys(real_path(one) for one in both):
        chosen = {
            key: stored[key]
            for key, given in (("thresholds", request.save_thresholds), ("temperature", request.save_temperature))
            if given and real_path(given) == path
        }
        meta = {**state["meta"], "scores": {**(state["meta"].get("scores") or {}), **chosen}}
        checkpoint.save(path, {**state, "meta": meta})


def stored_thresholds(found: Analysis) -> dict[str, float]:
    """Return the score threshold of each class by name; classes without true positives get the overall threshold."""
    names = found.truth.class_names
    pairs = zip(names, found.thresholds, strict=True)
    return {name: found.threshold if own is None else own for name, own in pairs}
