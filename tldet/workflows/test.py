"""``tldet test``: the COCO numbers of a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tldet.config import build_settings
from tldet.data.formats.source import SourceOptions
from tldet.data.loader import LoaderSettings
from tldet.data.split_paths import evaluation_split
from tldet.engine.precision import choose
from tldet.errors import DataError
from tldet.evaluation.report import CocoResult
from tldet.models.postprocess import set_nms
from tldet.models.surgery.fuse import fuse
from tldet.plugins import require_components
from tldet.system.device import pick_device
from tldet.system.output import check_output, write_json
from tldet.transfer.restore import restore
from tldet.workflows.training.data_summary import split_line
from tldet.workflows.training.parts import EvalSettings, Validation, build_dataset, check_images, check_objects

if TYPE_CHECKING:
    from rich.console import Console


log = logging.getLogger(__name__)


def test(
    checkpoint: str | Path,
    *,
    data: str | Path | None = None,
    images: str | Path | None = None,
    format: str | None = None,
    voc_boxes: Literal["continuous", "inclusive"] | None = None,
    split: str | None = None,
    on_bad_image: str | None = None,
    json_path: str | Path | None = None,
    results_path: str | Path | None = None,
    engine: str = "fast",
    device: str = "auto",
    precision: str = "auto",
    nms_per_class: bool | None = None,
    console: Console | None = None,
) -> CocoResult:
    """Evaluate a checkpoint on the data of its config or on another dataset.

    Args:
        checkpoint: a tldet checkpoint.
        data: annotations in any format, or a folder (see :func:`~tldet.data.split_paths.evaluation_split`); the classes
            are matched by name.
        images: image folder; by default searched around ``data``.
        format: format of ``data``; None detects it.
        voc_boxes: meaning of the corners in Pascal VOC files; None detects it.
        split: split of the checkpoint's config to use, "test", "val" or "train"; by default "test", else "val".
        on_bad_image: "error" or "skip" (do not evaluate) for images that are missing, unreadable, truncated or of
            another size than in the JSON; None takes the setting of the checkpoint's config.
        json_path: output file of the metrics; for a mask model the mask metrics, with the box metrics under ``bbox``.
        results_path: output file of the detections, a COCO results JSON with the ids of the dataset; for a mask model
            with masks instead of boxes, so that evaluating the file gives the same metrics.
        engine: "fast" or "pycocotools".
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``auto`` (fp32 on CPU), ``fp32``, ``bf16`` or ``fp16``.
        nms_per_class: apply NMS within each class only; None uses the setting of the checkpoint.
        console: shows the table of metrics; for a mask model one table for masks and one for boxes.

    Raises:
        TldetError: the checkpoint or the data is wrong, or they share no class.
    """
    for wanted in (json_path, results_path):
        if wanted:
            check_output(wanted)
    model, state = restore(checkpoint)
    if nms_per_class is not None:
        set_nms(model, per_class=nms_per_class)
    sections = state["config"]["data"]
    split = split or next((name for name in ("test", "val") if sections.get(name)), "val")
    if data is None:
        require_components(checkpoint, state, f"data.{split}")
    section = dict(sections.get(split) or {})
    given, on_bad_image = on_bad_image, on_bad_image or section.get("on_bad_image", "error")
    if data is not None:
        transforms = [{"type": "Resize", **state["meta"]["input"]}]
        found = evaluation_split(Path(data), images, SourceOptions(format, voc_boxes or "auto", None, given == "skip"))
        section = {"type": "CocoDataset", "annotations": str(found.annotations), "images": str(found.images)}
        section["transforms"] = transforms
    elif not section:
        raise DataError(f"{checkpoint}: its config names no data to evaluate on; give --data")
    elif images is not None:
        section["images"] = str(images)
    if given or section["type"] == "CocoDataset":
        section["on_bad_image"] = on_bad_image
    dataset = build_dataset(section, 0, tuple(state["meta"]["class_names"]))
    check_images(dataset)
    check_objects(dataset, "metrics are -1")
    loader = build_settings(LoaderSettings, sections.get("loader") or {})
    kind = (state["config"].get("evaluation") or {}).get("type", "bbox")
    validation = Validation(dataset, loader, EvalSettings(kind, engine), losses=False)  # type: ignore[arg-type]
    where = pick_device(device)
    chosen = choose(fuse(model.to(where)), where, precision)
    log.info("%s", split_line("evaluation", dataset))
    with chosen.autocast():
        validation(chosen.prepare(model))
    result = validation.result
    assert result is not None
    try:
        if console:
            console.print(*result.tables(), sep="\n")
    finally:  # either may fail, standard output or a file
        if results_path:
            write_json(results_path, validation.evaluators[0].results)
        if json_path:
            result.save(json_path)
    return result
