"""Loading of pretrained weights into a model, with a report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tldet.errors import CheckpointError
from tldet.integrity import problem_of
from tldet.models.detector import Detector
from tldet.text import counted
from tldet.transfer.class_match import ClassMap, MatchSettings, differing_in_case, few, match_classes
from tldet.transfer.classifier_weights import copy_classes
from tldet.transfer.licenses import license_of
from tldet.transfer.provenance import OUT_NORMS, reported_by
from tldet.transfer.sources import State, read_weights

log = logging.getLogger(__name__)
COUNTERS = "num_batches_tracked"
_LEAST_FITTING = 0.9  # fraction of the tensors of a backbone that must fit; a classifier has all of them


@dataclass
class LoadReport:
    """Report of loading weights, by tensor names.

    Attributes:
        source: source of the weights.
        copied: tensors that were copied unchanged.
        adapted: tensors that were loaded from another name, order or list of classes.
        new: tensors that keep their random values.
        unused: tensors of the source that were not loaded.
        misshapen: tensors of different shape in source and model, with a description.
        classes: class of the source for each class, None for a new class; empty for a backbone.
        provenance: summary of the training of the source; empty if unknown.
        license: license of the source; empty if none is stated.
    """

    source: str
    copied: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    misshapen: dict[str, str] = field(default_factory=dict)
    classes: ClassMap = field(default_factory=dict)
    provenance: str = ""
    license: str = ""

    def summary(self) -> str:
        """Return the report in one line."""
        adapted = f" ({len(self.adapted)} adapted)" if self.adapted else ""
        loaded = f"{counted(len(self.copied) + len(self.adapted), 'tensor')} loaded{adapted}"
        about = f" ({self.provenance})" if self.provenance else ""
        others = f"{_counted(self.new)} newly initialized, {_counted(self.unused)} unused"
        return f"{self.source}{about}: {loaded}, {others}"


def _counted(names: Sequence[str]) -> str:
    """Return the number of names, followed by the first three in parentheses."""
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "none"


def load_backbone_weights(backbone: nn.Module, source: str) -> LoadReport:
    """Fill a backbone from a source.

    Raises:
        CheckpointError: the source is not available (the message names the URL and the cache path), or it belongs to
            another architecture: a tensor has another shape, or more than a tenth of the tensors are missing.
    """
    state, adapted = read_weights(source)
    if adapted:
        state = in_order_of(backbone.state_dict(), state, source)
    report = load_state(backbone, state, source)
    report.provenance, report.license = reported_by(source), license_of(source)
    if adapted:
        report.copied, report.adapted = [], [f"{name} (by order)" for name in report.copied]
    if not report.copied and not report.adapted:
        names = ", ".join(list(state)[:3])
        raise CheckpointError(f"{source}: none of its tensors fits this backbone (tensors: {names}, ...)")
    _refuse_other_architecture(report)
    return report


def _refuse_other_architecture(report: LoadReport) -> None:
    """Raise CheckpointError for weights of another network of the same family, of which only some tensors fit."""
    fitting = len(report.copied) + len(report.adapted)
    missing = [name for name in report.new if not name.startswith(OUT_NORMS)]
    whole, other = fitting + len(missing), next(iter(report.misshapen), None)
    extra = report.unused if report.provenance else []  # such a file contains only a backbone
    if other or extra or fitting < _LEAST_FITTING * whole:
        reason = f"{fitting} of {counted(whole, 'tensor')} of the backbone fit"
        reason += f", {other} is {report.misshapen[other]}" if other else ""
        reason += f", {extra[0]} is not in the backbone" if extra else ""
        raise CheckpointError(f"{report.source}: belongs to another architecture ({reason}); choose its --backbone")


def load_state(model: nn.Module, state: State, source: str) -> LoadReport:
    """Copy all tensors whose name and shape fit, after removing or adding the prefix with which most names fit.

    Raises:
        CheckpointError: such a tensor has another kind of dtype, or contains NaN or infinite values.
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
                shapes = [" x ".join(map(str, one.shape)) or "a number" for one in (state[name], tensor)]
                report.misshapen[name] = f"{shapes[0]} in the file and {shapes[1]} in the model"
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
    """Rename tensors of ``state`` to the names of ``own`` in the same order; further tensors (a classifier) may follow.

    Raises:
        CheckpointError: a shape differs, or there are too few tensors.
    """
    own_names = [name for name in own if not name.endswith(COUNTERS)]
    state_names = [name for name in state if not name.endswith(COUNTERS)]
    pairs = list(zip(own_names, state_names, strict=False))
    wrong = next((pair for pair in pairs if own[pair[0]].shape != state[pair[1]].shape), None)
    if wrong or len(own_names) > len(state_names):
        raise CheckpointError(f"{source}: does not fit this backbone ({wrong or 'too few tensors'})")
    return {name: state[other] for name, other in pairs}


def load_detector(
    model: Detector,
    weights: State,
    class_names: Sequence[str | None],
    source: str,
    match: MatchSettings | None = None,
) -> LoadReport:
    """Load all weights of another detector that fit in name and shape.

    Rows of class layers (``class_layers`` of the head) are copied by class name, see
    :mod:`tldet.transfer.classifier_weights`. A class without a name in the other detector matches none.

    Args:
        model: the detector.
        weights: weights with tldet's tensor names.
        class_names: classes of the other detector.
        source: source of the weights, for messages.
        match: rules of matching classes; None for equal names.

    Raises:
        ConfigError: a class alias or a name does not match exactly one class.
        CheckpointError: nothing fits.
    """
    by_class: dict[str, Tensor] = {}
    match = match or MatchSettings()
    known = match_classes(class_names, model.class_names, match)
    if list(class_names) != list(known.values()):
        if problem := problem_of(model.state_dict(), weights):  # before classifier weights are copied
            raise CheckpointError(f"{source}: tensor {problem}")
        weights, by_class = _by_class(model, weights, class_names, list(known.values()))
        _log_matches(source, class_names, known, match)
    report = load_state(model, weights, source)
    report.classes = known
    report.adapted = [name for name in report.copied if name in by_class]
    report.copied = [name for name in report.copied if name not in by_class]
    if not report.copied:
        raise CheckpointError(f"{source}: no tensor fits this model")
    _warn_other_backbone(report)
    return report


def _warn_other_backbone(report: LoadReport) -> None:
    copied, new = (sum(name.startswith("backbone.") for name in names) for names in (report.copied, report.new))
    if copied < new:
        text = "%s: belongs to another backbone: %d of %s of the backbone newly initialized"
        log.warning(text, report.source, new, counted(copied + new, "tensor"))


def _log_matches(source: str, class_names: Sequence[str | None], known: ClassMap, match: MatchSettings) -> None:
    common = [name for name, old in known.items() if old is not None]
    log.info("%s: %d of %s matched (%s)", source, len(common), counted(len(known), "class", "classes"), few(common))
    missed = [name for name in differing_in_case(class_names, list(known)) if known[name] is None]
    if missed and "case" not in match.fold:
        log.info("%s: matched with --fold-names case only: %s", source, few(missed))
    if not common:
        names = few([name for name in class_names if name is not None])
        log.warning(
            "%s: no class in common (initial weights: %s; data: %s): classifier weights are newly initialized; use "
            "--class-aliases if classes have other names", source, names, few(list(known))
        )  # fmt: skip


def _by_class(
    model: Detector, weights: State, old_names: Sequence[str | None], new_names: Sequence[str | None]
) -> tuple[State, dict[str, Tensor]]:
    """Return the weights with class layers for the classes of the model, and these layers alone."""
    own, by_class, others = model.state_dict(), {}, dict(weights)
    head: Any = model.head
    background = getattr(head, "background_layers", ())
    layers = {f"head.{name}": name in background for name in getattr(head, "class_layers", ())}
    for name in [name for name in weights if name.rpartition(".")[0] in layers]:
        layer, old, new = name.rpartition(".")[0], others.pop(name), own.get(name)
        if new is None:
            continue
        kind = {"background": layers[layer], "biased": f"{layer}.bias" in own}
        rows = copy_classes(layer, old, new, old_names, new_names, **kind)
        if rows is not None:
            by_class[name] = rows
    return {**others, **by_class}, by_class
