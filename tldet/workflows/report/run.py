"""Sections of a report on the training run of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tldet.engine.logging import LOG_NAME, read_log
from tldet.visualize.page.document import Section
from tldet.visualize.page.plots import Plot, Series
from tldet.visualize.page.tables import Table
from tldet.workflows.training.status import STATUS_NAME, read_status

_METRICS = ("AP", "AP50", "bbox_AP")
_ACCURACIES = ("top1", "top5")  # metrics of a classifier
_LOSSES = 5  # maximum number of loss components in a plot


def run_sections(checkpoint: Path | None, run: Path | None) -> list[Section]:
    """Return training curves, class matching, data, configuration and environment.

    Args:
        checkpoint: the checkpoint; None or an exported detector has no such sections.
        run: folder of its run; None for no curves.
    """
    if checkpoint is None or checkpoint.suffix != ".pt":
        return []
    from tldet.transfer.provenance import checkpoint_outline

    training = [] if run is None else _training(read_log(run / LOG_NAME))
    splits = [] if run is None else read_status(run / STATUS_NAME).get("data", [])
    return [*training, *_about(checkpoint_outline(checkpoint), splits)]


def _training(records: Sequence[Mapping[str, Any]]) -> list[Section]:
    plots = training_plots(records)
    return [Section("Training", plots=plots)] if plots else []


def training_plots(records: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Return losses, validation metrics and learning rate by step, from the records of ``log.jsonl``."""
    train = [one for one in records if one["type"] == "train"]
    val = [one for one in records if one["type"] == "val"]
    losses = [name for name in _keys(train) if "loss" in name]
    losses.sort(key=lambda name: name != "loss")
    loss = [_series(train, name) for name in losses[: _LOSSES + 1]]
    loss += [_series(val, "val_loss", "o")] if "val_loss" in _keys(val) else []
    ap = [_series(val, name, "o") for name in (*_METRICS, *_ACCURACIES) if name in _keys(val)]
    metric = "accuracy (0 to 1)" if ap and ap[0].name in _ACCURACIES else "COCO AP (0 to 1)"
    lr = [_series(train, "lr")] if "lr" in _keys(train) else []
    kinds = (
        ("training_loss", "Loss", "loss", loss),
        ("training_ap", "Validation", metric, ap),
        ("learning_rate", "Learning rate", "learning rate", lr),
    )
    last = max((one["step"] for one in records), default=0)
    limits = (0.0, float(last)) if last else None
    return [
        Plot(name, title, "training step", label, series, xlim=limits) for name, title, label, series in kinds if series
    ]


def _keys(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for one in records for key in one if key not in ("type", "time", "step")))


def _series(records: Sequence[Mapping[str, Any]], name: str, marker: str = "") -> Series:
    points = [(one["step"], one[name]) for one in records if one.get(name) is not None]
    return Series(name, [step for step, _ in points], [value for _, value in points], marker=marker)


def _about(outline: Mapping[str, Any], splits: Sequence[str]) -> list[Section]:
    """Return class matching, data, configuration and environment of a checkpoint."""
    meta, config = outline["meta"], outline["config"]
    sections = [*_class_transfer(meta.get("classes_from")), _data(meta, config, splits)]
    facts = {**_flat(meta.get("versions") or {}), "initial weights": str(meta.get("weights_source", "unknown"))}
    facts |= {name: str(value) for name, value in _flat(meta.get("trained") or {}).items() if name != "result"}
    environment = Table(
        "environment", "Environment", ("name", "value"), [[name, str(value)] for name, value in facts.items()]
    )
    sections.append(Section("Environment", tables=[environment]))
    text = f"<details><summary>config</summary><pre>{escape(_outline(config))}</pre></details>"
    return [*sections, Section("Configuration", html=text)]


def _class_transfer(classes: Mapping[str, str | None] | None) -> list[Section]:
    """Return the origin of the classifier weights of each class, if they were copied from a detector."""
    if not classes:
        return []
    rows = [[name, "newly initialized" if old is None else old] for name, old in classes.items()]
    table = Table("class_transfer", "Classifier weights by class", ("class", "copied from class"), rows)
    return [Section("Class transfer", tables=[table])]


def _data(meta: Mapping[str, Any], config: Mapping[str, Any], splits: Sequence[str]) -> Section:
    """Return images and objects of each split, which only a run folder records, and the datasets of the config."""
    counts = [list(line.split(": ", 1)) for line in splits if ": " in line]
    tables = [Table("splits", "Images and objects", ("split", "content"), counts)] if counts else []
    data = {name: part for name, part in (config.get("data") or {}).items() if isinstance(part, Mapping)}
    rows = [[name, key, str(value)] for name, part in data.items() for key, value in part.items()]
    tables.append(Table("data", "Datasets", ("split", "key", "value"), rows))
    return Section("Data", [f"Classes: {', '.join(meta['class_names'])}"], tables)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key == "result":
            continue
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _outline(config: Mapping[str, Any], depth: int = 0) -> str:
    lines = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{'  ' * depth}{key}:", _outline(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{key}: {value!r}")
    return "\n".join(lines)
