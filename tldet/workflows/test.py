"""``tldet test``: COCO metrics of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tldet.components import require_components
from tldet.config import Config, build_settings, check
from tldet.data.formats.source import SourceOptions
from tldet.data.images import Reduced
from tldet.data.settings import LoaderSettings
from tldet.data.split_paths import evaluation_split
from tldet.engine.precision import Precision, choose
from tldet.errors import CheckpointError, DataError
from tldet.evaluation.report import CocoResult
from tldet.inference.predictor import Predictor
from tldet.inference.runtimes.exported import SUFFIXES, ExportedDetector, load_exported, refuse_nms
from tldet.inference.stream import Prepared
from tldet.models.detector import Detector
from tldet.models.postprocess import set_nms
from tldet.models.surgery.fuse import fuse
from tldet.structures.detections import Detections
from tldet.system.device import pick_device
from tldet.system.output import check_output, refuse_same, write_json
from tldet.transfer.restore import restore
from tldet.workflows.command_requests import TestRequest
from tldet.workflows.requests import takes
from tldet.workflows.training.data_summary import split_line
from tldet.workflows.training.datasets import AnyDataset, build_dataset, check_images, check_objects
from tldet.workflows.training.schema import SCHEMA, EvalSettings
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
    outputs = [path for path in (request.json, request.results) if path]
    refuse_same(outputs)
    for path in outputs:
        check_output(path, [request.checkpoint, request.data])
    model, state = _loaded(request)
    section = _section(request, state)
    for path in outputs:
        check_output(path, [section.get("annotations")])
    if request.tiles:
        section["transforms"] = []  # the tiles are resized, not the images
    dataset = _dataset(section, state)
    validation = _evaluated(model, dataset, state, request)
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


def _loaded(request: TestRequest) -> tuple[Detector | ExportedDetector, Mapping[str, Any]]:
    """Load a checkpoint, or an exported detector and what its checkpoint would state."""
    if Path(request.checkpoint).suffix in SUFFIXES:
        refuse_nms(request.nms_per_class)
        exported = load_exported(request.checkpoint, request.device, request.precision)
        return exported, exported_state(exported.metadata)
    model, state = restore(request.checkpoint)
    if request.nms_per_class is not None:
        set_nms(model, per_class=request.nms_per_class)
    return model, state


def exported_state(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint would state, from the metadata of an exported detector."""
    kind = "segm" if metadata.get("masks") else "bbox"
    return {"meta": dict(metadata), "config": {"data": {}, "evaluation": {"type": kind}}}


def _dataset(section: Mapping[str, Any], state: Mapping[str, Any]) -> AnyDataset:
    """Build the dataset and check its images."""
    dataset = build_dataset(section, 0, tuple(state["meta"]["class_names"]))
    check_images(dataset)
    check_objects(dataset, "metrics are -1")
    return dataset


def _section(request: TestRequest, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config section of the dataset: that of the checkpoint, or of the user-specified annotations."""
    sections = state["config"].get("data") or {}
    if not isinstance(sections, dict):
        raise CheckpointError(f"{request.checkpoint}: data: must be a section (a dict), not {sections!r}")
    split = request.split or next((name for name in ("test", "val") if sections.get(name)), "val")
    if request.data is None and sections:
        require_components(request.checkpoint, state, f"data.{split}")
    _check_config(request.checkpoint, state["config"], split if request.data is None else None)
    section = dict(sections.get(split) or {})
    on_bad_image = request.on_bad_image or section.get("on_bad_image", "error")
    if request.data is not None:
        skip = request.on_bad_image == "skip"
        source = SourceOptions(request.format, request.voc_boxes or "auto", None, skip)
        found = evaluation_split(Path(request.data), request.images, source)
        section = {"type": "CocoDataset", "annotations": str(found.annotations), "images": str(found.images)}
        section["transforms"] = [{"type": "Resize", **state["meta"]["input"]}]
    elif not section:
        raise DataError(f"{request.checkpoint}: its config has no data to evaluate on; give --data")
    elif request.images is not None:
        section["images"] = str(request.images)
    if request.on_bad_image or section["type"] == "CocoDataset":
        section["on_bad_image"] = on_bad_image
    return section


def _check_config(checkpoint: str | Path, config: Mapping[str, Any], split: str | None) -> None:
    """Check the parts of a checkpoint's config that evaluation uses.

    Args:
        checkpoint: the file, for messages.
        config: its config.
        split: split of the config that is evaluated; None for other data.

    Raises:
        ConfigError: a key or value is wrong.
    """
    sections = config.get("data") or {}
    used = {name: sections[name] for name in (split, "loader") if name and sections.get(name)}
    schema = {
        key: replace(part, required=False)
        for key, part in SCHEMA.items()
        if key == "evaluation" or (key.startswith("data.") and key.split(".")[1] in (split, "loader"))
    }
    check(Config({"data": used, "evaluation": config.get("evaluation")}, source=str(checkpoint)), schema)


def _evaluated(
    model: Detector | ExportedDetector, dataset: AnyDataset, state: Mapping[str, Any], request: TestRequest
) -> Validation:
    """Evaluate a detector on a dataset."""
    config = state["config"]
    loader = build_settings(LoaderSettings, (config.get("data") or {}).get("loader") or {})
    kind = (config.get("evaluation") or {}).get("type", "bbox")
    validation = Validation(dataset, loader, EvalSettings(kind, request.engine), losses=False)
    log.info("%s", split_line("evaluation", dataset))
    if isinstance(model, ExportedDetector):
        precision = Precision(model.metadata["precision"])
    else:
        device = pick_device(request.device)
        precision = choose(fuse(model.to(device)), device, request.precision)
    if request.tiles:
        _evaluate_tiles(validation, model, precision, state["meta"], request)
        return validation
    if isinstance(model, ExportedDetector):
        validation(model)
        return validation
    with precision.autocast():
        validation(precision.prepare(model))
    return validation


def _evaluate_tiles(
    validation: Validation,
    model: Detector | ExportedDetector,
    precision: Precision,
    meta: Mapping[str, Any],
    request: TestRequest,
) -> None:
    """Evaluate a detector on images of full size that are cut into tiles."""
    predictor = Predictor(
        model,
        meta["category_ids"],
        **meta["input"],
        precision=precision,
        nms_per_class=request.nms_per_class,
        tiles=request.tiles,
        overlap=request.overlap,
    )
    ids: list[int] = []

    def images() -> Iterator[Prepared]:
        for number in range(len(validation.dataset)):
            sample = validation.dataset[number]
            ids.append(sample.target.image_id)
            yield predictor.prepare(Reduced(np.asarray(sample.image.permute(1, 2, 0), np.uint8)))

    for group in predictor.stream(images(), 0.0, validation.loader.eval_batch_size):
        for number, found in group:
            assert isinstance(found, Detections)
            validation.take(ids[number], found)
    validation.finish()
