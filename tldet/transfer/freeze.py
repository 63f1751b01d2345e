"""What of a model does not learn, or not from the start.

Three layers of freezing meet: ``model.backbone.frozen_stages`` and ``.norm`` are the backbone's own and come first; the
``freeze`` section takes out more, by name; and what it takes out may be given back, at an epoch or group by group.
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

    A glob (``*``, ``?``, ``[...]``) is held against the dotted names of modules and parameters; a module stands for all
    that lies in it. ``["backbone"]`` freezes the whole backbone, ``["backbone", "neck"]`` everything but the head.

    Attributes:
        layers: globs of what does not learn.
        unfreeze_at: glob to the number of epochs, a fraction allowed, after which what it names learns; until then it
            is frozen, whether ``layers`` names it or not. Where several globs name a parameter, the earliest counts.
        gradual: the backbone starts frozen and learns layer group by layer group from the top down (Howard and Ruder
            2018, ULMFiT, section 3.3), evenly over this share of the run: of n groups, the k-th from the top from
            ``gradual * k / n`` of all steps on.

    Raises:
        ConfigError: a value is out of range.
    """

    layers: Sequence[str] = ()
    unfreeze_at: Mapping[str, float] = field(default_factory=dict)
    gradual: float | None = None

    def __post_init__(self) -> None:
        if self.gradual is not None and not 0 < self.gradual <= 1:
            raise ConfigError(f"freeze.gradual must be a share of the run, above 0 and at most 1, not {self.gradual}")
        for glob, epoch in self.unfreeze_at.items():
            if not 0 < epoch < math.inf:
                raise ConfigError(f"freeze.unfreeze_at: {glob!r} must be given an epoch above 0, not {epoch}")
        if self.unfreeze_at and self.gradual is not None:
            raise ConfigError("freeze: unfreeze_at and gradual both say when things learn; set one of them")

    @property
    def thaws(self) -> bool:
        """Whether something learns only later."""
        return bool(self.unfreeze_at) or self.gradual is not None


@dataclass(frozen=True)
class Moment:
    """A moment of a run, after so many epochs or after a share of all steps; one of them is set."""

    epoch: float | None = None
    share: float | None = None

    def step(self, total: int | None, steps_per_epoch: float) -> int:
        """How many steps lie before it.

        Args:
            total: steps of the whole run.
            steps_per_epoch: optimizer steps an epoch.
        """
        if self.epoch is not None:
            return round(self.epoch * steps_per_epoch)
        assert self.share is not None
        assert total is not None  # runs of minutes are refused
        return max(1, round(self.share * total))

    def __str__(self) -> str:
        return f"epoch {self.epoch:g}" if self.epoch is not None else f"{self.share:.0%} of the run"


@dataclass(frozen=True)
class Release:
    """What begins to learn at one moment: the names of its parameters."""

    moment: Moment
    names: tuple[str, ...]


def freeze(model: nn.Module, settings: FreezeSettings) -> list[Release]:
    """Take out of learning what never learns; what learns later still learns, so that an optimizer knows it.

    Args:
        model: with its starting weights; its backbone's own freezing is done.
        settings: what is frozen.

    Returns:
        What learns only later, the earliest first; :class:`~tldet.engine.regularization.Unfreezing` sees to it.

    Raises:
        ConfigError: a glob names nothing, or nothing that could learn; or nothing at all would learn.
    """
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    moments = _moments(model, settings, learning)
    for glob in settings.layers:
        for name in set(_matched(model, glob, "freeze.layers")) - moments.keys():
            model.get_parameter(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("freeze.layers: nothing of the model would learn; freeze less")
    model.train(model.training)
    groups: dict[Moment, list[str]] = defaultdict(list)
    for name, moment in moments.items():
        groups[moment].append(name)
    ordered = sorted(groups, key=lambda moment: moment.epoch or moment.share or 0.0)
    return [Release(moment, tuple(groups[moment])) for moment in ordered]


def _moments(model: nn.Module, settings: FreezeSettings, learning: Sequence[str]) -> dict[str, Moment]:
    """The moment from which each parameter that starts frozen learns."""
    if settings.gradual is not None:
        return _gradual(model, settings.gradual, learning)
    moments: dict[str, Moment] = {}
    for glob, epoch in sorted(settings.unfreeze_at.items(), key=lambda item: -item[1]):
        names = set(_matched(model, glob, "freeze.unfreeze_at")) & set(learning)
        if not names:
            raise ConfigError(
                f"freeze.unfreeze_at: {glob!r} names only what model.backbone.frozen_stages and .norm keep frozen for "
                "good; lower frozen_stages"
            )
        moments |= dict.fromkeys(names, Moment(epoch=epoch))  # the earliest comes last and stays
    return {name: moments[name] for name in learning if name in moments}


def _gradual(model: nn.Module, share: float, learning: Sequence[str]) -> dict[str, Moment]:
    """A moment for each layer group of the backbone that can learn; what lies above them goes with the top one."""
    names = [name for name in learning if within(name, ["backbone"])]
    groups = [[f"backbone.{prefix}" for prefix in prefixes] for _, prefixes in backbone_groups(model)]
    members = [[name for name in names if within(name, group)] for group in groups]
    above = set(names).difference(*members)
    if above and members:
        members[-1] = [*members[-1], *above]
    filled = [group for group in reversed(members) if group]
    if not filled:
        raise ConfigError("freeze.gradual: model.backbone.frozen_stages keeps all of the backbone frozen; lower it")
    steps = {name: share * (k + 1) / len(filled) for k, group in enumerate(filled) for name in group}
    return {name: Moment(share=steps[name]) for name in names}


def backbone_groups(model: nn.Module) -> list[tuple[str, list[str]]]:
    """(name, dotted prefixes in the backbone) of its layer groups from stem to top; none where there is no backbone."""
    backbone: Any = getattr(model, "backbone", None)
    return [] if backbone is None else list(backbone.layer_groups())


def _matched(model: nn.Module, glob: str, key: str) -> list[str]:
    """Names of the parameters that a glob names, or that lie in modules it names.

    Args:
        model: the model.
        glob: see :class:`FreezeSettings`.
        key: the config's, for the message.

    Raises:
        ConfigError: there are none; the message names what is nearest.
    """
    modules = [name for name, _ in model.named_modules() if name]
    found = [name for name in modules if fnmatchcase(name, glob)]
    parameters = [name for name, _ in model.named_parameters()]
    names = [name for name in parameters if fnmatchcase(name, glob) or within(name, found)]
    if not names:
        raise ConfigError(f"{key}: {glob!r} names nothing that has parameters; {_near(glob, modules, parameters)}")
    return names


def _near(glob: str, modules: Iterable[str], parameters: Iterable[str]) -> str:
    names = [*modules, *parameters]
    near = difflib.get_close_matches(glob, names, n=3, cutoff=0.6)
    return f"nearest: {', '.join(near)}" if near else f"the model has {', '.join(n for n in names if '.' not in n)}"
