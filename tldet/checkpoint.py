"""The checkpoint format: tensors and plain containers only, written atomically, read without running code."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tldet.errors import CheckpointError
from tldet.inputs import is_folder, require_file

log = logging.getLogger(__name__)
FORMAT, VERSION = "tldet", 1
PLAIN = (str, int, float, bool, type(None), Tensor, bytes)
ZIP_START, PICKLE_START = b"PK", b"\x80\x02"  # of torch's files, new and old
# Settings of a head in older checkpoints (section, name, value), and name and value of the same meaning now.
OLDER: Mapping[tuple[str, str, Any], tuple[str, Any]] = {
    ("settings", "normalise", "batch"): ("loss_normalizer", "batch"),
    ("settings", "normalise", "picture"): ("loss_normalizer", "image"),
    ("mask", "binary_targets", True): ("targets", "mmdet"),
    ("mask", "binary_targets", False): ("targets", "torchvision"),
}
STEP_NAME = re.compile(r"^step_(\d+)\.pt$")


def step_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps lies."""
    return folder / f"step_{step:08d}.pt"


def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` so that ``path`` is at any moment the old file or the new one, whole.

    Args:
        path: the file; its folder is made.
        state: tensors and plain containers; ``format`` and ``version`` are added.

    Raises:
        CheckpointError: the folder cannot be written, or the disk is full; nothing that was there is lost.
        TypeError: ``state`` holds something that is no tensor or plain container.
    """
    path = Path(path)
    whole = {"format": FORMAT, "version": VERSION, **state}
    _refuse_objects(whole, "state")
    _write(path, lambda file: torch.save(whole, file))


def _write(path: Path, dump: Any) -> None:
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            dump(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise _write_error(path, error) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _write_error(path: Path, error: OSError | RuntimeError) -> CheckpointError:
    """Torch reports a failed write as RuntimeError, with the system's reason only in its context."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    number = cause.errno if isinstance(cause, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError(f"{path}: the disk is full; earlier checkpoints are kept. Free some space and resume")
    reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
    return CheckpointError(f"{path}: cannot be written: {reason}")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _refuse_objects(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_objects(item, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _refuse_objects(item, f"{place}.{number}")
    elif not isinstance(value, PLAIN):
        raise TypeError(f"{place} is a {type(value).__name__}; checkpoints hold tensors and plain containers only")


def read_tensors(path: str | Path) -> Any:
    """What a .pt or .pth file holds, by torch's restricted reader: code in the file never runs.

    Raises:
        CheckpointError: the file is missing, cut off, or holds more than tensors and plain containers.
    """
    path = Path(path)
    require_file(path, CheckpointError)
    head = b""
    try:
        with path.open("rb") as file:
            head = file.read(2)
        with warnings.catch_warnings():  # of pickle protocols, which are nobody's concern here
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global) (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        if zipfile.is_zipfile(path) or found:
            raise CheckpointError(f"{path}: holds objects that could run code{what}; it was not loaded") from None
        raise CheckpointError(f"{path}: is no checkpoint (not a file that torch wrote)") from None
    except Exception as error:  # torch's reader follows the bytes it finds: what it raises has no end of kinds
        if not zipfile.is_zipfile(path) and head not in (b"", ZIP_START, PICKLE_START):
            raise CheckpointError(f"{path}: is no checkpoint (not a file that torch wrote)") from None
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]
        raise CheckpointError(f"{path}: is broken or cut off ({reason})") from None


def load(path: str | Path) -> dict[str, Any]:
    """A tldet checkpoint, with the settings of older ones under their present names.

    Raises:
        CheckpointError: it cannot be read, is none of ours, or is newer than this program.
    """
    state = read_tensors(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("version"), int):
        raise CheckpointError(f"{path}: is no tldet checkpoint")
    if state["version"] > VERSION:
        raise CheckpointError(
            f"{path}: has format version {state['version']}; this tldet reads {VERSION}: update tldet"
        )
    _rename_older(state)
    return state


def _rename_older(state: Mapping[str, Any]) -> None:
    value: Any = state
    for key in ("config", "model", "head"):
        value = value.get(key) if isinstance(value, Mapping) else None
    for (part, name, given), (now, meaning) in OLDER.items():
        section = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(section, dict) and section.get(name) == given:
            del section[name]
            section.setdefault(now, meaning)


def steps_in(folder: Path) -> list[Path]:
    """The step checkpoints of a folder, newest first."""
    found = [p for p in folder.glob("step_*.pt") if STEP_NAME.match(p.name)] if is_folder(folder) else []
    return sorted(found, key=lambda p: int(p.stem.removeprefix("step_")), reverse=True)


def newest_readable(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest step checkpoint that can be read; those that cannot are logged and passed over."""
    for path in steps_in(Path(folder)):
        try:
            return path, load(path)
        except CheckpointError as error:
            log.warning("passed over: %s", error)
    return None


def prune(folder: str | Path, keep: int) -> None:
    """Remove all but the newest ``keep`` step checkpoints (at least two), and what interrupted writes left."""
    for path in steps_in(Path(folder))[max(keep, 2) :]:
        path.unlink(missing_ok=True)
    for path in Path(folder).glob(".*.pt.*.tmp"):
        path.unlink(missing_ok=True)


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """The model's weights alone, as safetensors."""
    from safetensors.torch import save as to_bytes

    content = to_bytes({k: v.contiguous() for k, v in tensors.items()}, dict(metadata))
    _write(Path(path), lambda file: file.write(content))
