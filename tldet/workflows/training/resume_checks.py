"""Checks that a run is resumed with the same arguments, initial weights and classes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.errors import CheckpointError, TrainingError
from tldet.system.inputs import is_file, is_folder, read_file, real_path
from tldet.transfer.class_match import few
from tldet.transfer.provenance import checkpoint_outline

log = logging.getLogger(__name__)
ARGUMENTS_NAME = "arguments.json"  # arguments of a run, in its folder
_PATHS = ("data", "train", "val", "test", "images", "init-from", "weights", "class-aliases", "CKPT")
_EFFECTS = {
    "train": "the resumed run differs from an uninterrupted one",
    "val": "metrics before and after cannot be compared, and best.pt may be chosen on the earlier data",
}
NEVER = object()  # value of an argument that was not given


def refuse_changed_classes(
    folder: Path, names: Sequence[str], ids: Sequence[int] | None, data: Path, advice: str
) -> None:
    """Reject resuming a run whose classes differ from those of its checkpoints.

    Args:
        folder: folder of the run.
        names: current class names of the data, in label order.
        ids: category ids of the classes; None if the data have none.
        data: the annotations or the image folder.
        advice: advice on starting a new run from the weights, with ``{weights}`` for the file.

    Raises:
        TrainingError: the classes differ.
    """
    meta = next(_metas(folder), None)
    if meta is None:  # no checkpoint; the trainer reports this
        return
    before, now = list(meta["class_names"]), list(names)
    change = _change(before, now)
    if not change and ids is not None and list(meta["category_ids"]) != list(ids):
        change = f"category ids {list(meta['category_ids'])}, now {list(ids)}"
    if change:
        best = folder / "best.pt"
        weights = best if best.exists() else checkpoint.steps_in(folder)[0]
        raise TrainingError(
            f"{data}: the classes have changed since the run in {folder} was started ({change}). Restore the data to "
            f"resume, or {advice.format(weights=weights)}"
        )


def warn_of_changed_data(folder: Path, data: Mapping[str, str]) -> None:
    """Log a warning if a run is resumed on data that differs from that of its checkpoints.

    Args:
        folder: folder of the run.
        data: fingerprint of each split.
    """
    before: Mapping[str, str] = next(_metas(folder), {}).get("data", {})
    for split, name in (("train", "training"), ("val", "validation")):
        if split in before and split in data and before[split] != data[split]:
            log.warning("the %s data has changed since the run in %s was started: %s", name, folder, _EFFECTS[split])


def refuse_other_weights(folder: Path, init_from: str | Path | None) -> None:
    """Reject resuming a run with other initial weights.

    Args:
        folder: folder of the run.
        init_from: checkpoint of the initial weights, or None.

    Raises:
        TrainingError: the run was started with other weights.
    """
    meta = next(_metas(folder), None)
    if meta is None or init_from is None:
        return
    before = str(meta["weights_source"])
    if real_path(before) != real_path(init_from):
        raise TrainingError(
            f"--init-from {init_from}: the run in {folder} was started with {before}; leave --init-from out to resume "
            "it, or choose another folder"
        )


def _metas(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the ``meta`` section of each readable step checkpoint, newest first."""
    for path in checkpoint.steps_in(folder):
        with suppress(CheckpointError):
            yield checkpoint_outline(path)["meta"]


def _change(before: Sequence[str], now: Sequence[str]) -> str:
    """Describe the difference between two lists of class names; empty if they are equal."""
    gone, new = ([name for name in one if name not in other] for one, other in ((before, now), (now, before)))
    notes = [f"{word} {few(names)}" for word, names in (("removed:", gone), ("new:", new)) if names]
    if not notes and before != now:
        notes.append(f"order {few(before)}, now {few(now)}")
    return ", ".join(notes)


def refuse_other_arguments(folder: Path, given: Mapping[str, object]) -> None:
    """Reject resuming a run with other arguments.

    Args:
        folder: folder of the run.
        given: arguments by name; None if an argument is not given.

    Raises:
        TrainingError: an argument differs.
    """
    now = plain(given)
    if not now:
        return
    before = _arguments(folder / ARGUMENTS_NAME)
    if before is None:
        names = ", ".join(name if name.isupper() else f"--{name}" for name in now)
        raise TrainingError(f"{folder}: no record of the arguments of the run; leave out {names} to resume it")
    changed = [
        _difference(name, value, before) for name, value in now.items() if not _same(value, before.get(name, NEVER))
    ]
    if changed:
        raise TrainingError(
            f"--resume continues the run in {folder}, which was started with other arguments: {', '.join(changed)}. "
            "Leave these out, change the config by --cfg-options, such as schedule.steps=2000, or choose another --out"
        )


def _arguments(path: Path) -> dict[str, Any] | None:
    """Return the recorded arguments of a run; None if there is no record."""
    try:
        found = json.loads(read_file(path, TrainingError))
    except (TrainingError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _difference(name: str, value: Any, before: Mapping[str, Any]) -> str:
    option = name if name.isupper() else f"--{name}"
    shown = option if value is True else f"{option} {_text(value)}"
    return f"{shown} (was {_text(before[name])})" if name in before else f"{shown} (was not given)"


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def plain(arguments: Mapping[str, object]) -> dict[str, Any]:
    """Return the given arguments as plain JSON values; paths are absolute."""
    given = {name: _absolute(name, value) for name, value in arguments.items() if value is not None}
    loaded: dict[str, Any] = json.loads(json.dumps(given, default=str))
    return loaded


def _absolute(name: str, value: object) -> object:
    """Make the path of an existing file or folder absolute, so that the run can be resumed in another folder."""
    if name not in _PATHS or not isinstance(value, (str, Path)):
        return value
    found = is_file(value) or (name != "weights" and is_folder(value))  # a folder "coco" is not a weights file
    return str(real_path(value)) if found else value


def _same(one: Any, other: Any) -> bool:
    """Return True for equal values, and for two paths of one file."""
    if isinstance(one, str) and isinstance(other, str):
        return one == other or real_path(one) == real_path(other)
    return bool(one == other)
