"""A detector's checkpoint of another toolkit: what it holds, and its tensors under our names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tldet.errors import CheckpointError
from tldet.integrity import problem_of
from tldet.transfer.interop.dialects.dfine import OUTPUTS, from_dfine
from tldet.transfer.interop.dialects.mmdet import from_mmdet
from tldet.transfer.interop.dialects.torchvision import EPS, from_torchvision
from tldet.transfer.interop.known import KeyLayout, Known, recognize
from tldet.transfer.interop.mmdet_config import Policy, find_config, policy_of
from tldet.transfer.interop.wrapped import detector_prefix, state_in
from tldet.transfer.safe_unpickle.archives import WRONG, Archive, SafeArchive, read_archive
from tldet.transfer.weights import COUNTERS, LoadReport

_NAMED = 3
# A name of torchvision before 0.13. Its published weights of that time, but FCOS's, were trained with norms that add
# nothing to the variance, and torchvision runs them so (``overwrite_eps(model, 0.0)``).
OLD_NAME = "backbone.fpn.inner_blocks.0.weight"


@dataclass
class Foreign:
    """What a file holds.

    Attributes:
        path: the file.
        content: its plain values besides the tensors (mmdet's ``meta``, ...).
        state: name to tensor, in the names of the file.
        layout: what these tell.
        averaged: names of averaged weights beside the others (mmdet 2.x's ``ema_...``), left out of ``state``.
        others: names of tensors outside the detector, also left out of ``state``.
        set_aside: how many objects of which foreign class or function.
    """

    path: Path
    content: Mapping[Any, Any]
    state: dict[str, Tensor]
    layout: KeyLayout
    averaged: list[str]
    others: list[str]
    set_aside: Counter[str]


def read_foreign(path: str | Path) -> Foreign:
    """Read a detector's checkpoint of another toolkit; code in it never runs.

    Raises:
        CheckpointError: it cannot be read, or holds no tensors.
    """
    return foreign_in(read_archive(path))


def foreign_in(archive: Archive) -> Foreign:
    """The same of a file that is open already."""
    whole = state_in(archive)
    bare = _bare(whole)
    tensors = archive.tensors(bare)
    if not tensors:
        raise archive.empty()
    averaged = [name for name in tensors if name.startswith("ema_")]
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("ema_")}
    prefix = detector_prefix(whole)
    others = [name for name in archive.outlines(whole) if not name.startswith((prefix, *OUTPUTS))]
    content = {} if isinstance(archive, SafeArchive) else archive.value
    return Foreign(archive.path, content, state, recognize(state), averaged, others, archive.set_aside)


def layout_in(archive: Archive) -> KeyLayout:
    """What its keys and shapes tell; no tensor is read.

    Raises:
        CheckpointError: it holds no state dict.
    """
    return recognize(archive.outlines(_bare(state_in(archive))))


def _bare(state: Mapping[str, Any]) -> dict[str, Any]:
    """Select the detector's entries and remove the prefix of their names."""
    prefix = detector_prefix(state)
    return {name.removeprefix(prefix): item for name, item in state.items() if name.startswith((prefix, *OUTPUTS))}


def policy_in(content: Mapping[Any, Any], known: Known, layout: KeyLayout, path: Path) -> Policy:
    """What the file's own config says of images and anchors; torchvision's files hold none.

    Raises:
        CheckpointError: the config has values that cannot be.
    """
    if known.dialect != "mmdet":
        return Policy()
    try:
        policy = policy_of(find_config(content))
    except WRONG as error:  # a RecursionError is a RuntimeError
        why = " ".join(str(error).split())[:100]
        raise CheckpointError(f"{path}: the config inside it cannot be read ({why})") from None
    return policy if layout.bottlenecks else replace(policy, strided_conv=None)


def translate(known: Known, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A state dict in our names and row order.

    Raises:
        CheckpointError: a tensor has not the dimensions its name says.
    """
    try:
        if known.dialect == "torchvision":
            old = OLD_NAME in state and known.case != "fcos"
            return from_torchvision(state, norm_eps=0.0 if old else EPS)
        return from_dfine(state) if known.dialect == "dfine" else from_mmdet(state)
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be mapped as {known.case}: {' '.join(str(error).split())}") from None


def fill(model: nn.Module, translated: Mapping[str, Tensor], foreign: Foreign, what: str) -> LoadReport:
    """Put all of ``translated`` into ``model``, or nothing.

    Raises:
        CheckpointError: a tensor is missing, too many, or of another shape (counted, the first few named), or of
            another kind of dtype, or contains NaN or infinite values.
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
        raise CheckpointError(f"{foreign.path}: does not fit {what}: {'; '.join(problems)}")
    if problem := problem_of(own, translated):
        raise CheckpointError(f"{foreign.path}: tensor {problem}")
    model.load_state_dict({name: translated[name] for name in both}, strict=False)
    same = [name for name in both if translated[name] is foreign.state.get(name)]
    adapted = [name for name in both if translated[name] is not foreign.state.get(name)]
    return LoadReport(str(foreign.path), copied=same, adapted=adapted, unused=foreign.averaged + foreign.others)


def _named(what: str, names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names)} {what} ({', '.join(names[:_NAMED])}{more})"
