"""Pretrained weights put into a model, and a report of what arrived."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from tldet import checkpoint
from tldet.errors import CheckpointError
from tldet.models.detector import Detector
from tldet.transfer.provenance import told_by
from tldet.transfer.sources import State, read_source

log = logging.getLogger(__name__)
COUNTERS = "num_batches_tracked"


@dataclass
class LoadReport:
    """What became of every tensor.

    Attributes:
        source: where the weights came from.
        copied: names that were filled as they are.
        adapted: names that were filled from another name or order, and how.
        new: names that keep their random values.
        unused: names of the source that went nowhere.
        provenance: what the source says of how it came about; empty when it says nothing.
    """

    source: str
    copied: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    provenance: str = ""

    def summary(self) -> str:
        """One line."""
        counts = f"{len(self.copied)} tensors copied, {len(self.adapted)} adapted, {len(self.new)} newly initialised"
        named = f" ({', '.join(self.new[:3])}{', ...' if len(self.new) > 3 else ''})" if self.new else ""
        unused = f" ({', '.join(self.unused[:3])}{', ...' if len(self.unused) > 3 else ''})" if self.unused else ""
        told = f" ({self.provenance})" if self.provenance else ""
        return f"weights from {self.source}{told}: {counts}{named}, {len(self.unused)} unused{unused}"


def load_backbone_weights(backbone: nn.Module, source: str) -> LoadReport:
    """Fill a backbone from a source.

    Raises:
        CheckpointError: the source cannot be had (the message names the URL and the cache path), or nothing matched.
    """
    state, adapted = read_source(source)
    if adapted:
        state = in_order_of(backbone.state_dict(), state, source)
    report = load_state(backbone, state, source)
    report.provenance = told_by(source)
    if adapted:
        report.copied, report.adapted = [], [f"{name} (by order)" for name in report.copied]
    if not report.copied and not report.adapted:
        theirs = ", ".join(list(state)[:3])
        raise CheckpointError(f"{source}: none of its {len(state)} tensors fits this backbone (it holds {theirs}, ...)")
    return report


def load_state(model: nn.Module, state: State, source: str) -> LoadReport:
    """Copy every tensor whose name and shape fit; the prefix under which most names fit is taken off or put on."""
    own = model.state_dict()
    state = _best_prefix(own, state)
    report = LoadReport(source)
    fitting: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if name in state and state[name].shape == tensor.shape:
            fitting[name] = state[name]
            report.copied.append(name)
        elif not name.endswith(COUNTERS):
            report.new.append(name)
    report.unused = [name for name in state if name not in fitting and not name.endswith(COUNTERS)]
    model.load_state_dict(fitting, strict=False)
    return report


def _best_prefix(own: State, state: State) -> State:
    heads = {""} | {name[: i + 1] for name in state for i, c in enumerate(name) if c == "." and i < 40}
    tails = {""} | {name[: i + 1] for name in own for i, c in enumerate(name) if c == "." and name[:i].count(".") < 2}
    candidates = [{put + k[len(cut) :]: v for k, v in state.items() if k.startswith(cut)}
                  for cut in heads for put in tails if not (cut and put) or cut != put]  # fmt: skip
    return max(candidates, key=lambda c: sum(1 for k, v in c.items() if k in own and own[k].shape == v.shape))


def in_order_of(own: State, state: State, source: str) -> dict[str, Tensor]:
    """``state`` under the names of ``own``: same tensors, same order, other names; a classifier may follow."""
    ours = [name for name in own if not name.endswith(COUNTERS)]
    theirs = [name for name in state if not name.endswith(COUNTERS)]
    pairs = list(zip(ours, theirs, strict=False))
    wrong = next((pair for pair in pairs if own[pair[0]].shape != state[pair[1]].shape), None)
    if wrong or len(ours) > len(theirs):
        raise CheckpointError(f"{source}: does not fit this backbone ({wrong or 'too few tensors'})")
    return {mine: state[other] for mine, other in pairs}


def init_from(model: Detector, path: str | Path, class_names: Sequence[str]) -> LoadReport:
    """Start from a tldet checkpoint: its EMA weights where it has them, all that fits in name and shape.

    Layers whose rows are classes (the head's ``class_layers``) stay new unless both class lists are equal.
    """
    state = checkpoint.load(path)
    weights = state.get("ema") or state["model"]
    if list(state["meta"]["class_names"]) != list(class_names):
        rows = tuple(f"head.{name}." for name in cast(Any, model.head).class_layers)
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(rows)}
        log.info("%s has other classes: the layers that name them start new", path)
    report = load_state(model, weights, str(path))
    if not report.copied:
        raise CheckpointError(f"{path}: nothing in it fits this model")
    return report
