"""What of a model learns, from when on, and how fast: the table that training begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from tldet.models.backbones import within
from tldet.transfer.freeze import Release, backbone_groups

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("part", "parameters", "learning", "from", "learning rate", "decay")


@dataclass
class ParameterRow:
    """One row: a layer group of the backbone, or another part of the model.

    Attributes:
        name: of the part.
        parameters: how many numbers it has.
        learning: how many of them learn, now or later.
        when: from when on they learn.
        rates: the optimizer's learning rates for them, before the schedule's factor.
        decays: its weight decays, in words where they are none.
    """

    name: str
    parameters: int = 0
    learning: int = 0
    when: list[str] = field(default_factory=list)
    rates: set[float] = field(default_factory=set)
    decays: set[str] = field(default_factory=set)

    def cells(self) -> tuple[str, ...]:
        """What each of ``COLUMNS`` says."""
        ends = dict.fromkeys((min(self.rates), max(self.rates))) if self.rates else ()
        rates = " to ".join(f"{rate:.3g}" for rate in ends) or "-"
        when, decays = ", ".join(self.when) or "frozen", ", ".join(sorted(self.decays)) or "-"
        return self.name, f"{self.parameters:,}", f"{self.learning:,}", when, rates, decays

    def line(self) -> str:
        """The same for a log."""
        name, parameters, learning, when, rates, decays = self.cells()
        if not self.learning:
            return f"{name}: {parameters} parameters, frozen"
        return f"{name}: {learning} of {parameters} parameters learn from {when}, learning rate {rates}, decay {decays}"


def parts(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    releases: Sequence[Release] = (),
    pulled: Mapping[str, float] | None = None,
) -> list[ParameterRow]:
    """The rows from the backbone's stem to the head.

    Args:
        model: what learns at any time learns by now.
        optimizer: of the model.
        releases: what learns only later.
        pulled: how strongly each parameter that is pulled to its start instead of decaying is pulled.
    """
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    later = {name: str(one.moment) for one in releases for name in one.names}
    homes = {f"backbone.{prefix}": name for name, group in backbone_groups(model) for prefix in group}
    table = {name: ParameterRow(name) for name in homes.values()}
    for name, parameter in model.named_parameters():
        home = next((homes[prefix] for prefix in homes if within(name, [prefix])), name.partition(".")[0])
        row = table.setdefault(home, ParameterRow(home))
        row.parameters += parameter.numel()
        if (group := settings.get(id(parameter))) is None:
            continue
        row.learning += parameter.numel()
        row.rates.add(float(group["initial_lr"]))
        pull = (pulled or {}).get(name)
        row.decays.add(f"{group['weight_decay']:g}" if pull is None else f"L2-SP {pull:g}")
        if (moment := later.get(name, "the start")) not in row.when:
            row.when.append(moment)
    return list(table.values())


def parameter_table(rows: Sequence[ParameterRow]) -> Table:
    """The rows and their sum as a rich table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="what learns", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("part", "from") else "right")
    for row in rows:
        table.add_row(*row.cells())
    table.add_section()
    table.add_row("all", f"{sum(row.parameters for row in rows):,}", f"{sum(row.learning for row in rows):,}")
    return table
