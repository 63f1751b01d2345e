"""Pretrained weights put into a model, and a report of what arrived."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tldet.errors import CheckpointError
from tldet.integrity import problem_of
from tldet.models.detector import Detector
from tldet.transfer.class_match import MatchSettings, Origins, but_for_case, few, origins
from tldet.transfer.classifier_weights import carry_rows
from tldet.transfer.provenance import OUT_NORMS, reported_by
from tldet.transfer.sources import State, read_weights

log = logging.getLogger(__name__)
COUNTERS = "num_batches_tracked"
_MOST = 0.9  # of its tensors a backbone must find; a classifier has them all


@dataclass
class LoadReport:
    """What became of every tensor.

    Attributes:
        source: where the weights came from.
        copied: names that were filled as they are.
        adapted: names that were filled from another name or order, and how.
        new: names that keep their random values.
        unused: names of the source that went nowhere.
        misshapen: names that both have, with unlike shapes, in words.
        classes: the class of the source that each class is, None for a new one; empty for a backbone.
        provenance: what the source says of how it came about; empty when it says nothing.
    """

    source: str
    copied: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    misshapen: dict[str, str] = field(default_factory=dict)
    classes: Origins = field(default_factory=dict)
    provenance: str = ""

    def summary(self) -> str:
        """One line."""
        counts = f"{len(self.copied)} tensors copied, {len(self.adapted)} adapted, {len(self.new)} newly initialized"
        named = f" ({', '.join(self.new[:3])}{', ...' if len(self.new) > 3 else ''})" if self.new else ""
        unused = f" ({', '.join(self.unused[:3])}{', ...' if len(self.unused) > 3 else ''})" if self.unused else ""
        told = f" ({self.provenance})" if self.provenance else ""
        return f"weights from {self.source}{told}: {counts}{named}, {len(self.unused)} unused{unused}"


def load_backbone_weights(backbone: nn.Module, source: str) -> LoadReport:
    """Fill a backbone from a source.

    Raises:
        CheckpointError: the source cannot be had (the message names the URL and the cache path), or it is of another
            architecture: a tensor has another shape, or most are missing.
    """
    state, adapted = read_weights(source)
    if adapted:
        state = in_order_of(backbone.state_dict(), state, source)
    report = load_state(backbone, state, source)
    report.provenance = reported_by(source)
    if adapted:
        report.copied, report.adapted = [], [f"{name} (by order)" for name in report.copied]
    if not report.copied and not report.adapted:
        theirs = ", ".join(list(state)[:3])
        raise CheckpointError(f"{source}: none of its {len(state)} tensors fits this backbone (it holds {theirs}, ...)")
    _refuse_another(report)
    return report


def _refuse_another(report: LoadReport) -> None:
    """Networks of one family share names: what fits by chance is no pretraining."""
    fitting = len(report.copied) + len(report.adapted)
    missing = [name for name in report.new if not name.startswith(OUT_NORMS)]
    whole, other = fitting + len(missing), next(iter(report.misshapen), None)
    beyond = report.unused if report.provenance else []  # such a file holds a backbone and nothing else
    if other or beyond or fitting < _MOST * whole:
        why = f"{fitting} of the backbone's {whole} tensors fit"
        why += f", {other} is {report.misshapen[other]}" if other else ""
        why += f", it has {beyond[0]} besides" if beyond else ""
        raise CheckpointError(f"{report.source}: is of another architecture: {why}; give the --backbone that it is of")


def load_state(model: nn.Module, state: State, source: str) -> LoadReport:
    """Copy every tensor whose name and shape fit; the prefix under which most names fit is removed or added.

    Raises:
        CheckpointError: such a tensor is of another kind of dtype, or contains NaN or infinite values.
    """
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
            if name in state:
                theirs, ours = (" x ".join(map(str, one.shape)) or "a number" for one in (state[name], tensor))
                report.misshapen[name] = f"{theirs} there and {ours} here"
    report.unused = [name for name in state if name not in fitting and not name.endswith(COUNTERS)]
    if problem := problem_of(own, fitting):
        raise CheckpointError(f"{source}: tensor {problem}")
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


def load_detector(
    model: Detector,
    weights: State,
    class_names: Sequence[str | None],
    source: str,
    match: MatchSettings | None = None,
) -> LoadReport:
    """Fill a detector from another's weights: all that fits in name and shape.

    The rows of layers that name classes (the head's ``class_layers``) go by class; how those of new classes start is
    told in :mod:`tldet.transfer.classifier_weights`. A class of the other detector that has no name is none of ours.

    Args:
        model: it.
        weights: in our names.
        class_names: of the other detector.
        source: where the weights come from.
        match: how its classes are known again; by their very names when None.

    Raises:
        ConfigError: a class alias or a folded name does not fit.
        CheckpointError: nothing fits.
    """
    carried: dict[str, Tensor] = {}
    match = match or MatchSettings()
    known = origins(class_names, model.class_names, match)
    if list(class_names) != list(known.values()):
        if problem := problem_of(model.state_dict(), weights):  # before rows of classes are copied
            raise CheckpointError(f"{source}: tensor {problem}")
        weights, carried = _by_class(model, weights, class_names, list(known.values()))
        _tell(source, class_names, known, match)
    report = load_state(model, weights, source)
    report.classes = known
    report.adapted = [name for name in report.copied if name in carried]
    report.copied = [name for name in report.copied if name not in carried]
    if not report.copied:
        raise CheckpointError(f"{source}: nothing in it fits this model")
    here, new = (sum(name.startswith("backbone.") for name in names) for names in (report.copied, report.new))
    if here < new:
        log.warning("%s: its backbone is another one: %d of %d tensors start new", source, new, here + new)
    return report


def _tell(source: str, class_names: Sequence[str | None], known: Origins, match: MatchSettings) -> None:
    common = [name for name, old in known.items() if old is not None]
    log.info("%s: %d of %d classes known by name (%s)", source, len(common), len(known), few(common))
    missed = [name for name in but_for_case(class_names, list(known)) if known[name] is None]
    if missed and "case" not in match.fold:
        log.info("%s: these would be known but for their letter case (--fold-names case): %s", source, few(missed))
    if not common:
        theirs = few([name for name in class_names if name is not None])
        log.warning(
            "%s: none of its classes (%s) is one of the data (%s): all rows of classes start new; --class-aliases "
            "says which is which", source, theirs, few(list(known))
        )  # fmt: skip


def _by_class(
    model: Detector, weights: State, old_names: Sequence[str | None], new_names: Sequence[str | None]
) -> tuple[State, dict[str, Tensor]]:
    """The weights with class layers for the model's own classes, and these layers alone."""
    own, carried, others = model.state_dict(), {}, dict(weights)
    head: Any = model.head
    background = getattr(head, "background_layers", ())
    layers = {f"head.{name}": name in background for name in getattr(head, "class_layers", ())}
    for name in [name for name in weights if name.rpartition(".")[0] in layers]:
        layer, old, new = name.rpartition(".")[0], others.pop(name), own.get(name)
        if new is None:
            continue
        kind = {"background": layers[layer], "biased": f"{layer}.bias" in own}
        rows = carry_rows(layer, old, new, old_names, new_names, **kind)
        if rows is not None:
            carried[name] = rows
    return {**others, **carried}, carried
