"""Detector checkpoints of other toolkits: contents, and translation to tldet's tensor names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tldet.errors import CheckpointError
from tldet.integrity import problem_of
from tldet.transfer.interop.dialects.dfine import DFINE_OUTPUTS, from_dfine
from tldet.transfer.interop.dialects.mmdet import from_mmdet
from tldet.transfer.interop.dialects.torchvision import EPS, from_torchvision
from tldet.transfer.interop.known import KeyLayout, Known, recognize
from tldet.transfer.interop.mmdet_config import MmdetSettings, find_config, mmdet_settings
from tldet.transfer.interop.wrapped import detector_prefix, state_in
from tldet.transfer.safe_unpickle.archives import WRONG, Archive, SafeArchive, read_archive
from tldet.transfer.weights import COUNTERS, LoadReport

_NAMED = 3
# A tensor name of torchvision before 0.13. Weights published before, except FCOS, were trained with eps 0 in the norms,
# and torchvision sets it (``overwrite_eps(model, 0.0)``).
OLD_NAME = "backbone.fpn.inner_blocks.0.weight"


@dataclass
class Foreign:
    """Contents of a file.

    Attributes:
        path: the file.
        content: plain values besides the tensors (``meta`` of mmdet, ...).
        state: tensors by their names in the file.
        layout: layout recognized from names and shapes.
        averaged: names of additional averaged weights (``ema_...`` of mmdet 2.x), which are not in ``state``.
        others: names of tensors outside the detector, which are not in ``state``.
        set_aside: number of skipped objects by class or function.
    """

    path: Path
    content: Mapping[Any, Any]
    state: dict[str, Tensor]
    layout: KeyLayout
    averaged: list[str]
    others: list[str]
    set_aside: Counter[str]


def read_foreign(path: str | Path) -> Foreign:
    """Read a detector checkpoint of another toolkit without running code from it.

    Raises:
        CheckpointError: the file cannot be read or contains no tensors.
    """
    return foreign_in(read_archive(path))


def foreign_in(archive: Archive) -> Foreign:
    """Read a detector checkpoint from an open archive, see :func:`read_foreign`."""
    whole = state_in(archive)
    bare = _bare(whole)
    tensors = archive.tensors(bare)
    if not tensors:
        raise archive.empty()
    averaged = [name for name in tensors if name.startswith("ema_")]
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("ema_")}
    prefix = detector_prefix(whole)
    others = [name for name in archive.outlines(whole) if not name.startswith((prefix, *DFINE_OUTPUTS))]
    content = {} if isinstance(archive, SafeArchive) else archive.value
    return Foreign(archive.path, content, state, recognize(state), averaged, others, archive.set_aside)


def layout_in(archive: Archive) -> KeyLayout:
    """Recognize the layout of an archive by names and shapes, without reading tensors.

    Raises:
        CheckpointError: the archive contains no state dict.
    """
    return recognize(archive.outlines(_bare(state_in(archive))))


def _bare(state: Mapping[str, Any]) -> dict[str, Any]:
    """Select the detector's entries and remove the prefix of their names."""
    prefix = detector_prefix(state)
    return {
        name.removeprefix(prefix): item for name, item in state.items() if name.startswith((prefix, *DFINE_OUTPUTS))
    }


def settings_in(content: Mapping[Any, Any], known: Known, layout: KeyLayout, path: Path) -> MmdetSettings:
    """Read the settings of images and anchors from the config in a file; files of torchvision contain none.

    Raises:
        CheckpointError: the config has invalid values.
    """
    if known.dialect != "mmdet":
        return MmdetSettings()
    try:
        settings = mmdet_settings(find_config(content))
    except WRONG as error:  # a RecursionError is a RuntimeError
        reason = " ".join(str(error).split())[:100]
        raise CheckpointError(f"{path}: the config inside it cannot be read ({reason})") from None
    return settings if layout.bottlenecks else replace(settings, strided_conv=None)


def translate(known: Known, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Translate a state dict to tldet's names and row order.

    Raises:
        CheckpointError: the dimensions of a tensor do not fit its name.
    """
    try:
        if known.dialect == "torchvision":
            old = OLD_NAME in state and known.case != "fcos"
            return from_torchvision(state, norm_eps=0.0 if old else EPS)
        return from_dfine(state) if known.dialect == "dfine" else from_mmdet(state)
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be converted as {known.case}: {' '.join(str(error).split())}") from None


def fill(model: nn.Module, translated: Mapping[str, Tensor], foreign: Foreign, target: str) -> LoadReport:
    """Load all tensors of ``translated`` into ``model``, or none; ``target`` describes the model in messages.

    Raises:
        CheckpointError: tensors are missing, unexpected, or of another shape (the first few are named), or a tensor has
            another kind of dtype or contains NaN or infinite values.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in translated and not name.endswith(COUNTERS)]
    unexpected = [name for name in translated if name not in own and not name.endswith(COUNTERS)]
    both = [name for name in own if name in translated]
    wrong = [
        f"{name} {list(translated[name].shape)} instead of {list(own[name].shape)}"
        for name in both
        if translated[name].shape != own[name].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    problems = [_named(kind, names) for kind, names in found.items() if names]
    if problems:
        raise CheckpointError(f"{foreign.path}: does not fit {target}: {'; '.join(problems)}")
    if problem := problem_of(own, translated):
        raise CheckpointError(f"{foreign.path}: tensor {problem}")
    model.load_state_dict({name: translated[name] for name in both}, strict=False)
    same = [name for name in both if translated[name] is foreign.state.get(name)]
    adapted = [name for name in both if translated[name] is not foreign.state.get(name)]
    return LoadReport(str(foreign.path), copied=same, adapted=adapted, unused=foreign.averaged + foreign.others)


def _named(kind: str, names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{more})"
