"""``tldet test``: COCO metrics of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tldet.engine.precision import Precision, choose
from tldet.evaluation.report import CocoResult
from tldet.inference.predictor import Predictor
from tldet.inference.runtimes.exported import (
    EXPORTED_SUFFIXES,
    ExportedDetector,
    load_exported,
    refuse_nms,
    refuse_threads,
)
from tldet.inference.stream import PreparedImage
from tldet.models.detector import Detector
from tldet.models.postprocess import set_nms
from tldet.models.surgery.fuse import fuse
from tldet.runtime.images import Reduced
from tldet.structures.detections import Detections
from tldet.structures.target import Target
from tldet.system.device import pick_device
from tldet.system.output import write_json
from tldet.system.output_checks import check_outputs
from tldet.transfer.restore import restore
from tldet.workflows.command_requests import TestRequest
from tldet.workflows.evaluation_data import EvaluationData, evaluation_dataset, evaluation_on
from tldet.workflows.requests import takes
from tldet.workflows.training.data_summary import split_line
from tldet.workflows.training.datasets import AnyDataset
from tldet.workflows.training.validation import Validation

log = logging.getLogger(__name__)


@takes(TestRequest)
def test(request: TestRequest) -> CocoResult:
    """Evaluate a checkpoint on the data of its config or on another dataset.

    The classes of another dataset are matched by name. The results of a mask model contain masks instead of boxes, so
    that :func:`tldet.evaluate` of the file gives the same metrics.

    Raises:
        TldetError: the checkpoint or the data is invalid, or they share no class.
    """
    return evaluate_on(request, _given(request))


def evaluate_on(request: TestRequest, given: EvaluationData) -> CocoResult:
    """Evaluate a checkpoint as :func:`test`, on other data than that of the request.

    Raises:
        TldetError: the checkpoint or the data is invalid, or they share no class.
    """
    outputs = (request.json, request.results)
    check_outputs(outputs, [request.checkpoint, given.data], overwrite=request.overwrite)
    model, state = _loaded(request)
    section = given.section(request.checkpoint, state)
    check_outputs(outputs, [section.get("annotations")], overwrite=True)
    if request.tiles:
        section["transforms"] = []  # the tiles are resized, not the images
    dataset = evaluation_dataset(section, state)
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


def detect(request: TestRequest) -> Validation:
    """Evaluate a checkpoint as :func:`test`, without output; return the evaluation with its detections.

    Raises:
        TldetError: the checkpoint or the data is invalid, or they share no class.
    """
    model, state = _loaded(request)
    dataset = evaluation_dataset(_given(request).section(request.checkpoint, state), state)
    return _evaluated(model, dataset, state, request)


def _given(request: TestRequest) -> EvaluationData:
    source = request.source_options(missing=request.on_bad_image == "skip")
    return EvaluationData(request.data, request.images, request.split, source, request.on_bad_image)


def _loaded(request: TestRequest) -> tuple[Detector | ExportedDetector, Mapping[str, Any]]:
    """Load a checkpoint, or an exported detector with the state of its checkpoint."""
    if Path(request.checkpoint).suffix in EXPORTED_SUFFIXES:
        refuse_nms(request.nms_per_class)
        exported = load_exported(request.checkpoint, request.device, request.precision, request.threads)
        return exported, exported_state(exported.metadata)
    refuse_threads(request.checkpoint, request.threads)
    model, state = restore(request.checkpoint)
    if request.nms_per_class is not None:
        set_nms(model, per_class=request.nms_per_class)
    return model, state


def exported_state(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Build the parts of a checkpoint's state that evaluation needs from the metadata of an exported detector."""
    kind = "segm" if metadata.get("masks") else "bbox"
    return {"meta": dict(metadata), "config": {"data": {}, "evaluation": {"type": kind}}}


def _evaluated(
    model: Detector | ExportedDetector, dataset: AnyDataset, state: Mapping[str, Any], request: TestRequest
) -> Validation:
    """Evaluate a detector on a dataset."""
    validation = evaluation_on(dataset, state["config"], request.engine)
    log.info("%s; annotations in %s", split_line("evaluation", dataset), dataset.index.path)
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
    targets: list[Target] = []

    def images() -> Iterator[PreparedImage]:
        for number in range(len(validation.dataset)):
            sample = validation.dataset[number]
            targets.append(replace(sample.target, masks=None))
            yield predictor.prepare(Reduced(np.asarray(sample.image.permute(1, 2, 0), np.uint8)))

    for group in predictor.stream(images(), 0.0, validation.loader.eval_batch_size):
        for number, found in group:
            assert isinstance(found, Detections)
            validation.update([targets[number]], [found])
    validation.finish()
