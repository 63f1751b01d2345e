"""Options that say what of the start stays: each goes into the config, where a resumed run finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldet.errors import TrainingError
from tldet.transfer.class_match import Fold, read_aliases

WORDS = {"all-but-head": ["backbone", "neck"]}  # of --freeze; every other word is a glob


@dataclass(frozen=True)
class TransferOptions:
    """What is asked for; None or empty leaves the recipe as it is.

    Attributes:
        freeze: what does not learn: "backbone", "all-but-head", or globs, see
            :class:`~tldet.transfer.freeze.FreezeSettings`.
        gradual: share of the run over which the backbone begins to learn, from the top down.
        layer_decay: see :class:`~tldet.transfer.param_groups.Recipe`.
        l2_sp: strength of the backbone's pull to its start (:class:`~tldet.engine.l2_sp.L2SPSettings`).
        class_aliases: a file (:func:`~tldet.transfer.class_match.read_aliases`).
        fold_names: see :class:`~tldet.transfer.class_match.MatchSettings`.
    """

    freeze: Sequence[str] = ()
    gradual: float | None = None
    layer_decay: float | None = None
    l2_sp: float | None = None
    class_aliases: str | Path | None = None
    fold_names: Sequence[Fold] = ()

    def given(self) -> dict[str, object]:
        """Each option's value, None where it was not given."""
        values = {name.replace("_", "-"): value for name, value in vars(self).items()}
        return {name: value if value != () else None for name, value in values.items()}

    def write(self, config: dict[str, Any]) -> None:
        """Write what is asked for into a config, whose sections are sections.

        Raises:
            ConfigError: the file of aliases cannot be read.
        """
        if self.freeze:
            layers = [glob for word in self.freeze for glob in WORDS.get(word, [word])]
            _write(config, "freeze", "layers", layers)
        if self.gradual is not None:
            _write(config, "freeze", "gradual", self.gradual)
        if self.layer_decay is not None:
            _write(config, "optimizer", "layer_decay", self.layer_decay)
        if self.l2_sp is not None:
            config["l2_sp"] = {"alpha": self.l2_sp}
        if self.class_aliases is not None:
            _write(config, "class_match", "aliases", read_aliases(self.class_aliases))
        if self.fold_names:
            _write(config, "class_match", "fold", list(self.fold_names))

    def refuse_scratch(self) -> None:
        """Refuse every option for a run from scratch: each of them needs pretrained weights.

        Raises:
            TrainingError: an option is given.
        """
        if kept := [name for name, value in self.given().items() if value is not None]:
            raise TrainingError(f"--scratch and --{kept[0]} exclude each other: random weights are nothing to keep")


def _write(config: dict[str, Any], name: str, key: str, value: object) -> None:
    """A key of a section, which may be absent or None."""
    config[name] = {**(config.get(name) or {}), key: value}
