"""Freezing of parameters, for the whole run or for its first part.

``model.backbone.frozen_stages`` and ``model.backbone.norm`` freeze parameters for the whole run and take precedence.
The ``freeze`` section freezes further parameters by name, and can unfreeze them at an epoch or group by group.
"""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from tldet.errors import ConfigError
from tldet.models.backbones import within


@dataclass(frozen=True)
class FreezeSettings:
    """The ``freeze`` section of a config.

    A glob (``*``, ``?``, ``[...]``) is matched against the dotted names of modules and parameters; a module stands for
    all its parameters. ``["backbone"]`` freezes the backbone, ``["backbone", "neck"]`` everything except the head.

    Attributes:
        layers: globs of frozen parameters.
        unfreeze_at: glob -> number of epochs (may be a fraction) after which the matching parameters are unfrozen.
            Until then they are frozen, even if ``layers`` does not match them. If several globs match a parameter, the
            earliest epoch counts.
        gradual: freeze the backbone and unfreeze its layer groups one by one from the top (Howard and Ruder 2018,
            ULMFiT, section 3.3), evenly over this fraction of the run: of n groups, the k-th from the top after
            ``gradual * k / n`` of all steps.

    Raises:
        ConfigError: a value is out of range.
    """

    layers: Sequence[str] = ()
    unfreeze_at: Mapping[str, float] = field(default_factory=dict)
    gradual: float | None = None

    def __post_init__(self) -> None:
        if self.gradual is not None and not 0 < self.gradual <= 1:
            raise ConfigError(f"freeze.gradual must be a fraction of the run in (0, 1], not {self.gradual}")
        for glob, epoch in self.unfreeze_at.items():
            if not 0 < epoch < math.inf:
                raise ConfigError(f"freeze.unfreeze_at: the epoch of {glob!r} must be above 0, not {epoch}")
        if self.unfreeze_at and self.gradual is not None:
            raise ConfigError("freeze: unfreeze_at and gradual cannot be combined; set one of them")

    @property
    def unfreezes(self) -> bool:
        """True if some parameters are unfrozen during the run."""
        return bool(self.unfreeze_at) or self.gradual is not None


@dataclass(frozen=True)
class Moment:
    """A time in a run: a number of epochs, or a fraction of all steps. Exactly one of them is set."""

    epoch: float | None = None
    share: float | None = None

    def step(self, total: int | None, steps_per_epoch: float) -> int:
        """Return the number of steps before this time.

        Args:
            total: number of steps of the run; may be None if ``epoch`` is set.
            steps_per_epoch: optimizer steps per epoch.
        """
        if self.epoch is not None:
            return round(self.epoch * steps_per_epoch)
        assert self.share is not None
        assert total is not None  # runs limited by minutes are rejected
        return max(1, round(self.share * total))

    def __str__(self) -> str:
        return f"epoch {self.epoch:g}" if self.epoch is not None else f"{self.share:.0%} of the run"


@dataclass(frozen=True)
class UnfreezeStage:
    """Parameters that are unfrozen at the same time, by name."""

    moment: Moment
    names: tuple[str, ...]


def freeze(model: nn.Module, settings: FreezeSettings) -> list[UnfreezeStage]:
    """Freeze the parameters that stay frozen for the whole run.

    Parameters that are unfrozen later stay trainable until :class:`Unfreezing` freezes them, so that the optimizer
    includes them.

    Args:
        model: the model with its initial weights; ``frozen_stages`` of its backbone are frozen already.
        settings: selects parameters.

    Returns:
        The parameters that are unfrozen later, the earliest first, for :class:`Unfreezing`.

    Raises:
        ConfigError: a glob matches no parameter or no trainable one, or nothing would be trainable.
    """
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    moments = _moments(model, settings, trainable)
    for glob in settings.layers:
        for name in set(_matched(model, glob, "freeze.layers")) - moments.keys():
            model.get_parameter(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("freeze.layers: no parameter would be trainable; freeze less")
    model.train(model.training)
    groups: dict[Moment, list[str]] = defaultdict(list)
    for name, moment in moments.items():
        groups[moment].append(name)
    ordered = sorted(groups, key=lambda moment: moment.epoch or moment.share or 0.0)
    return [UnfreezeStage(moment, tuple(groups[moment])) for moment in ordered]


def _moments(model: nn.Module, settings: FreezeSettings, trainable: Sequence[str]) -> dict[str, Moment]:
    """Return the time at which each parameter is unfrozen, by name."""
    if settings.gradual is not None:
        return _gradual(model, settings.gradual, trainable)
    moments: dict[str, Moment] = {}
    for glob, epoch in sorted(settings.unfreeze_at.items(), key=lambda item: -item[1]):
        names = set(_matched(model, glob, "freeze.unfreeze_at")) & set(trainable)
        if not names:
            raise ConfigError(
                f"freeze.unfreeze_at: all parameters matching {glob!r} are frozen by model.backbone.frozen_stages or "
                ".norm for the whole run; lower frozen_stages"
            )
        moments |= dict.fromkeys(names, Moment(epoch=epoch))  # the earliest is the last
    return {name: moments[name] for name in trainable if name in moments}


def _gradual(model: nn.Module, share: float, trainable: Sequence[str]) -> dict[str, Moment]:
    """Return a time for each trainable layer group; parameters of the backbone in no group join the top group."""
    names = [name for name in trainable if within(name, ["backbone"])]
    groups = [[f"backbone.{prefix}" for prefix in prefixes] for _, prefixes in backbone_groups(model)]
    members = [[name for name in names if within(name, group)] for group in groups]
    others = set(names).difference(*members)
    if others and members:
        members[-1] = [*members[-1], *others]
    filled = [group for group in reversed(members) if group]
    if not filled:
        raise ConfigError("freeze.gradual: model.backbone.frozen_stages freezes the whole backbone; lower it")
    steps = {name: share * (k + 1) / len(filled) for k, group in enumerate(filled) for name in group}
    return {name: Moment(share=steps[name]) for name in names}


def backbone_groups(model: nn.Module) -> list[tuple[str, list[str]]]:
    """Return (name, dotted prefixes) of the layer groups of the backbone from stem to top; empty without a backbone."""
    backbone: Any = getattr(model, "backbone", None)
    return [] if backbone is None else list(backbone.layer_groups())


def _matched(model: nn.Module, glob: str, key: str) -> list[str]:
    """Return the names of parameters that match a glob or belong to a matching module.

    Args:
        model: the model.
        glob: see :class:`FreezeSettings`.
        key: config key, for the message.

    Raises:
        ConfigError: there are none; the message suggests similar names.
    """
    modules = [name for name, _ in model.named_modules() if name]
    found = [name for name in modules if fnmatchcase(name, glob)]
    parameters = [name for name, _ in model.named_parameters()]
    names = [name for name in parameters if fnmatchcase(name, glob) or within(name, found)]
    if not names:
        raise ConfigError(f"{key}: {glob!r} matches no parameters; {_suggestion(glob, modules, parameters)}")
    return names


def _suggestion(glob: str, modules: Iterable[str], parameters: Iterable[str]) -> str:
    names = [*modules, *parameters]
    near = difflib.get_close_matches(glob, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"the model has {', '.join(name for name in names if '.' not in name)}"


class Unfreezing:
    """Hook that freezes parameters until their time comes.

    The set of trainable parameters is a function of the step, so that a resumed run trains the same parameters as an
    uninterrupted one. A frozen parameter has no gradient: it does not contribute to the gradient norm, and neither
    optimizers nor the moving average of the weights change it.

    Args:
        model: the model; all parameters of ``stages`` are trainable, so that the optimizer includes them.
        stages: result of :func:`freeze`.
    """

    def __init__(self, model: nn.Module, stages: Sequence[UnfreezeStage]) -> None:
        self.model, self.stages = model, stages
        self._trainable = [True] * len(stages)

    def before_train(self, runner: Any) -> None:
        """Freeze the parameters that the next step does not train."""
        self._set(runner)

    def after_train_iter(self, runner: Any, **_: Any) -> None:
        """Unfreeze the parameters that are trained from the next step on, and report them."""
        before = self._trainable
        self._set(runner)
        started = [one for one, was, now in zip(self.stages, before, self._trainable, strict=True) if now and not was]
        if started:
            size = sum(self.model.get_parameter(name).numel() for one in started for name in one.names)
            runner.reporter.show(f"after step {runner.state.step}: {size:,} more parameters are trainable")

    def _set(self, runner: Any) -> None:
        step, total, epoch = runner.state.step, runner.state.total, runner.steps_per_epoch
        trainable = [one.moment.step(total, epoch) <= step for one in self.stages]
        if trainable == self._trainable:
            return
        self._trainable = trainable
        for one, is_trained in zip(self.stages, trainable, strict=True):
            for name in one.names:
                self.model.get_parameter(name).requires_grad_(is_trained)
        self.model.train()
