"""``tldet test``: the COCO numbers of a checkpoint."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.config import Config, build_settings
from tldet.config.check import check
from tldet.data.loader import LoaderSettings
from tldet.data.split_paths import evaluation_split
from tldet.engine.precision import choose
from tldet.errors import CheckpointError, DataError
from tldet.evaluation.report import CocoResult
from tldet.models.postprocess import set_nms
from tldet.models.surgery.fuse import fuse
from tldet.plugins import require_components
from tldet.system.device import pick_device
from tldet.system.output import check_output, refuse_same, write_json
from tldet.transfer.restore import restore
from tldet.workflows.training.data_summary import split_line
from tldet.workflows.training.parts import SCHEMA, EvalSettings, Validation, build_dataset, check_images, check_objects

if TYPE_CHECKING:
    from rich.console import Console


log = logging.getLogger(__name__)


def test(
    checkpoint: str | Path,
    *,
    data: str | Path | None = None,
    images: str | Path | None = None,
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
    """Evaluate a checkpoint on the data of its config or on another COCO JSON.

    Args:
        checkpoint: a tldet checkpoint.
        data: COCO annotations, or a folder (see :func:`~tldet.data.split_paths.evaluation_split`); the classes
            are matched by name.
        images: image folder; by default searched around ``data``.
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
    outputs = [path for path in (json_path, results_path) if path]
    refuse_same(outputs)
    for path in outputs:
        check_output(path, [checkpoint, data])
    model, state = restore(checkpoint)
    if nms_per_class is not None:
        set_nms(model, per_class=nms_per_class)
    sections = state["config"].get("data") or {}
    if not isinstance(sections, dict):
        raise CheckpointError(f"{checkpoint}: data: must be a section (a dict), not {sections!r}")
    split = split or next((name for name in ("test", "val") if sections.get(name)), "val")
    if data is None:
        require_components(checkpoint, state, f"data.{split}")
    _check_config(checkpoint, state["config"], sections, split if data is None else None)
    section = dict(sections.get(split) or {})
    given, on_bad_image = on_bad_image, on_bad_image or section.get("on_bad_image", "error")
    if data is not None:
        transforms = [{"type": "Resize", **state["meta"]["input"]}]
        found = evaluation_split(Path(data), images)
        section = {"type": "CocoDataset", "annotations": str(found.annotations), "images": str(found.images)}
        section["transforms"] = transforms
    elif not section:
        raise DataError(f"{checkpoint}: its config names no data to evaluate on; give --data")
    elif images is not None:
        section["images"] = str(images)
    if given or section["type"] == "CocoDataset":
        section["on_bad_image"] = on_bad_image
    for path in outputs:
        check_output(path, [section.get("annotations")])
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


def _check_config(checkpoint: str | Path, config: dict[str, Any], sections: dict[str, Any], split: str | None) -> None:
    """Check the parts of a checkpoint's config that evaluation uses.

    Args:
        checkpoint: the file, for messages.
        config: its config.
        sections: the ``data`` section.
        split: split of the config that is evaluated; None for other data.

    Raises:
        ConfigError: a key or value is wrong.
    """
    used = {name: sections[name] for name in (split, "loader") if name and sections.get(name)}
    schema = {
        key: replace(part, required=False)
        for key, part in SCHEMA.items()
        if key == "evaluation" or (key.startswith("data.") and key.split(".")[1] in (split, "loader"))
    }
    check(Config({"data": used, "evaluation": config.get("evaluation")}, source=str(checkpoint)), schema)
