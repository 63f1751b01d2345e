"""Checkpoint format: tensors and plain containers only, written atomically, read without running code."""

from __future__ import annotations

import contextlib
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tldet import integrity
from tldet.errors import CheckpointError
from tldet.system.inputs import is_file, is_folder, require_file
from tldet.system.output import path_text, remove_leftovers, replacing, write_bytes

log = logging.getLogger(__name__)
FORMAT, VERSION = "tldet", 1
_PLAIN = (str, int, float, bool, type(None), Tensor, bytes)
ZIP_START, PICKLE_START = b"PK", b"\x80\x02"  # of torch's files, new and old
STEP_NAME = re.compile(r"^step_(\d+)\.pt$")


def step_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"step_{step:08d}.pt"


def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint with a checksum; see :func:`~tldet.system.output.replacing`.

    Args:
        path: the file; its folder is created.
        state: tensors and plain containers; ``format`` and ``version`` are added.

    Raises:
        OutputError: the file cannot be written; earlier files are unchanged.
        TypeError: ``state`` contains something that is not a tensor or plain container.
    """
    whole = {"format": FORMAT, "version": VERSION, **state}
    _reject_objects(whole, "state")
    with replacing(path) as file:
        try:
            torch.save(whole, file)
        except RuntimeError as error:
            raise _system_error(error) from None
        if file.readable():  # else a pipe or device
            integrity.seal(file)


def _system_error(error: BaseException) -> BaseException:
    """Return the OSError that caused torch's RuntimeError about a failed write, or else the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause or error


def _reject_objects(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _reject_objects(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _reject_objects(item, f"{name}.{number}")
    elif not isinstance(value, _PLAIN):
        raise TypeError(f"{name} is a {type(value).__name__}; checkpoints contain tensors and plain containers only")


def read_tensors(path: str | Path) -> Any:
    """Read a .pt or .pth file with torch's restricted unpickler: code in the file never runs.

    Raises:
        CheckpointError: the file is missing, truncated, does not match its checksums, or contains more
            than tensors and plain containers.
    """
    path = Path(path)
    require_file(path, CheckpointError)
    head = b""
    try:
        with path.open("rb") as file:
            head = file.read(2)
        if head == ZIP_START:
            integrity.check_zip(path)
        with warnings.catch_warnings():  # about pickle protocols
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global) (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        if zipfile.is_zipfile(path) or found:
            raise CheckpointError(f"{path}: contains objects that could run code{what}; it was not loaded") from None
        raise CheckpointError(f"{path}: is not a checkpoint (not a file written by torch)") from None
    except Exception as error:  # torch's reader raises many kinds of errors for damaged files
        if not zipfile.is_zipfile(path) and head not in (b"", ZIP_START, PICKLE_START):
            raise CheckpointError(f"{path}: is not a checkpoint (not a file written by torch)") from None
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]
        raise CheckpointError(f"{path}: is damaged or cut off ({reason})") from None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a tldet checkpoint.

    Raises:
        CheckpointError: it cannot be read, is not a tldet checkpoint, is newer than this program, or contains tensors
            that are not plain arrays of finite numbers.
    """
    state = read_tensors(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("version"), int):
        raise CheckpointError(f"{path}: is not a tldet checkpoint")
    if state["version"] > VERSION:
        raise CheckpointError(
            f"{path}: has format version {state['version']}; this tldet reads {VERSION}: update tldet"
        )
    _check_tensors(path, state)
    return state


def _check_tensors(path: str | Path, state: Mapping[str, Any]) -> None:
    for name, tensor in integrity.named_tensors(state):
        if form := integrity.form_of(tensor):
            raise CheckpointError(f"{path}: tensor {path_text(name)} {form}")
    training = state.get("training")
    parts = {"model": state.get("model"), "ema": state.get("ema")}
    if isinstance(training, Mapping):
        parts |= {key: value for key, value in training.items() if key != "window"}  # losses and gradient norms
    for section, value in parts.items():
        for name, tensor in integrity.named_tensors(value, section):
            if not integrity.is_finite(tensor):
                raise CheckpointError(f"{path}: tensor {path_text(name)} contains NaN or infinite values")


def steps_in(folder: Path) -> list[Path]:
    """Return the step checkpoints of a folder, newest first."""
    found = [p for p in folder.glob("step_*.pt") if STEP_NAME.match(p.name) and is_file(p)] if is_folder(folder) else []
    return sorted(found, key=lambda p: int(p.stem.removeprefix("step_")), reverse=True)


def newest_readable(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest readable step checkpoint of a folder; unreadable ones are logged and skipped."""
    for path in steps_in(Path(folder)):
        try:
            return path, load_checkpoint(path)
        except CheckpointError as error:
            log.warning("skipped: %s", error)
    return None


def prune(folder: str | Path, keep: int) -> None:
    """Remove all but the newest ``keep`` step checkpoints (at least two), and files of interrupted writes."""
    for path in steps_in(Path(folder))[max(keep, 2) :]:
        with contextlib.suppress(PermissionError):  # a file that is being read, on Windows; it is removed next time
            path.unlink(missing_ok=True)
    remove_leftovers(Path(folder), ".pt")


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights as safetensors with a checksum; see :func:`~tldet.system.output.replacing`."""
    from safetensors.torch import save as to_bytes

    content = to_bytes({k: v.contiguous() for k, v in tensors.items()}, dict(metadata))
    write_bytes(path, integrity.with_crc(content))
