"""``tldet test``: COCO metrics of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tldet.components import require_components
from tldet.config import build_settings
from tldet.data.formats.source import SourceOptions
from tldet.data.settings import LoaderSettings
from tldet.data.split_paths import evaluation_split
from tldet.engine.precision import choose
from tldet.errors import DataError
from tldet.evaluation.report import CocoResult
from tldet.models.detector import Detector
from tldet.models.postprocess import set_nms
from tldet.models.surgery.fuse import fuse
from tldet.system.device import pick_device
from tldet.system.output import check_output, write_json
from tldet.transfer.restore import restore
from tldet.workflows.command_requests import TestRequest
from tldet.workflows.requests import takes
from tldet.workflows.training.data_summary import split_line
from tldet.workflows.training.datasets import AnyDataset, build_dataset, check_images, check_objects
from tldet.workflows.training.schema import EvalSettings
from tldet.workflows.training.validation import Validation

log = logging.getLogger(__name__)


@takes(TestRequest)
def test(request: TestRequest) -> CocoResult:
    """Evaluate a checkpoint on the data of its config or on another dataset.

    The classes of another dataset are matched by name. The results of a mask model contain masks instead of boxes, so
    that :func:`tldet.evaluate` of the file gives the same metrics.

    Raises:
        TldetError: the checkpoint or the data is wrong, or they share no class.
    """
    for path in (request.json, request.results):
        if path:
            check_output(path)
    model, state = restore(request.checkpoint)
    if request.nms_per_class is not None:
        set_nms(model, per_class=request.nms_per_class)
    dataset = _dataset(request, state)
    validation = _evaluated(model, dataset, state["config"], request)
    result = validation.result
    assert result is not None
    try:
        if request.console:
            request.console.print(*result.tables(), sep="\n")
    finally:  # either may fail, standard output or a file
        if request.results:
            write_json(request.results, validation.evaluators[0].results)
        if request.json:
            result.save(request.json)
    return result


def _dataset(request: TestRequest, state: Mapping[str, Any]) -> AnyDataset:
    """Build the dataset and check its images."""
    dataset = build_dataset(_section(request, state), 0, tuple(state["meta"]["class_names"]))
    check_images(dataset)
    check_objects(dataset, "metrics are -1")
    return dataset


def _section(request: TestRequest, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config section of the dataset: that of the checkpoint, or of the user-specified annotations."""
    sections = state["config"]["data"]
    split = request.split or next((name for name in ("test", "val") if sections.get(name)), "val")
    section = dict(sections.get(split) or {})
    on_bad_image = request.on_bad_image or section.get("on_bad_image", "error")
    if request.data is not None:
        skip = request.on_bad_image == "skip"
        source = SourceOptions(request.format, request.voc_boxes or "auto", None, skip)
        found = evaluation_split(Path(request.data), request.images, source)
        section = {"type": "CocoDataset", "annotations": str(found.annotations), "images": str(found.images)}
        section["transforms"] = [{"type": "Resize", **state["meta"]["input"]}]
    else:
        require_components(request.checkpoint, state, f"data.{split}")
        if not section:
            raise DataError(f"{request.checkpoint}: its config has no data to evaluate on; give --data")
        if request.images is not None:
            section["images"] = str(request.images)
    if request.on_bad_image or section["type"] == "CocoDataset":
        section["on_bad_image"] = on_bad_image
    return section


def _evaluated(model: Detector, dataset: AnyDataset, config: Mapping[str, Any], request: TestRequest) -> Validation:
    """Evaluate a detector on a dataset."""
    loader = build_settings(LoaderSettings, config["data"].get("loader") or {})
    kind = (config.get("evaluation") or {}).get("type", "bbox")
    validation = Validation(dataset, loader, EvalSettings(kind, request.engine), losses=False)
    device = pick_device(request.device)
    precision = choose(fuse(model.to(device)), device, request.precision)
    log.info("%s", split_line("evaluation", dataset))
    with precision.autocast():
        validation(precision.prepare(model))
    return validation
