"""Options of class matching, freezing and learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.errors import TrainingError
from tldet.workflows.options import ABOVE_0, SHARE, option
from tldet.workflows.requests import Request, options

if TYPE_CHECKING:
    from tldet.transfer.class_match import Fold

_WORDS = {"all-but-head": ["backbone", "neck"]}  # of --freeze; every other word is a glob
_TITLE = "freezing and learning rates"


@dataclass(frozen=True, kw_only=True)
class MatchOptions(Request):
    """Options of class matching between the data and the initial weights; see :mod:`tldet.transfer.class_match`."""

    class_aliases: str | Path | None = option(
        "file that maps class names of the data to class names of the initial weights: JSON {name: initial name}, or "
        "lines 'name: initial name'",
        metavar="FILE",
        sets=["class_match.aliases"],
    )
    fold_names: Sequence[Fold] = option(
        "match class names ignoring case or plural",
        choices=["case", "plural"],
        many=True,
        sets=["class_match.fold"],
    )

    def written(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a config with these options.

        Raises:
            ConfigError: the file of aliases cannot be read.
        """
        from tldet.transfer.class_match import read_class_aliases

        config = dict(config)
        if self.class_aliases is not None:
            _set(config, "class_match", "aliases", read_class_aliases(self.class_aliases))
        if self.fold_names:
            _set(config, "class_match", "fold", list(self.fold_names))
        return config


@dataclass(frozen=True, kw_only=True)
class TransferOptions(MatchOptions):
    """Options of frozen layers and learning rates; None or empty keeps the setting of the recipe."""

    freeze: Sequence[str] = option(
        "freeze 'backbone', 'all-but-head', or modules and parameters matching a glob",
        metavar="WHAT",
        many=True,
        sets=["freeze.layers"],
        group=_TITLE,
    )
    gradual: float | None = option(
        "unfreeze the backbone stage by stage, starting from the last stage, over this share of the run (default: 0.5)",
        float,
        metavar="SHARE",
        interval=SHARE,
        const=0.5,
        sets=["freeze.gradual"],
        group=_TITLE,
    )
    layer_decay: float | None = option(
        "learning rate of each layer group relative to the group above it",
        float,
        metavar="F",
        interval=SHARE,
        sets=["optimizer.layer_decay"],
        group=_TITLE,
    )
    l2_sp: float | None = option(
        "regularize the backbone towards its initial weights (L2-SP) with this strength instead of weight decay",
        float,
        metavar="A",
        interval=ABOVE_0,
        sets=["l2_sp.alpha"],
        group=_TITLE,
    )

    def written(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a config with these options.

        Raises:
            ConfigError: the file of aliases cannot be read.
        """
        config = super().written(config)
        if self.freeze:
            _set(config, "freeze", "layers", [glob for word in self.freeze for glob in _WORDS.get(word, [word])])
        if self.gradual is not None:
            _set(config, "freeze", "gradual", self.gradual)
        if self.layer_decay is not None:
            _set(config, "optimizer", "layer_decay", self.layer_decay)
        if self.l2_sp is not None:
            config["l2_sp"] = {"alpha": self.l2_sp}
        return config

    def refuse_scratch(self) -> None:
        """Reject these options for a run from scratch; they need pretrained weights.

        Raises:
            TrainingError: an option is given.
        """
        given = self.given()
        named = [name for name in (one.replace("_", "-") for one in options(TransferOptions)) if name in given]
        if named:
            raise TrainingError(f"--scratch and --{named[0]} exclude each other: it needs pretrained weights")


def _set(config: dict[str, Any], name: str, key: str, value: object) -> None:
    """Set a key in a copy of a section, which may be absent or None."""
    config[name] = {**(config.get(name) or {}), key: value}
