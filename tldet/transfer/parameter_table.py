"""Table of trainable parameters, their learning rates and weight decays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from tldet.models.backbones import within
from tldet.transfer.freeze import UnfreezeStage, backbone_groups

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("part", "parameters", "trainable", "from step", "learning rate", "weight decay")


@dataclass
class ParameterRow:
    """One row of the table: a layer group of the backbone, or another part of the model.

    Attributes:
        name: name of the part.
        parameters: number of parameters.
        trainable: number of parameters that are trained in the whole run or a part of it.
        since: times at which the training of parameters begins.
        rates: learning rates, before the factor of the schedule.
        decays: weight decays, or the strength of L2-SP.
    """

    name: str
    parameters: int = 0
    trainable: int = 0
    since: list[str] = field(default_factory=list)
    rates: set[float] = field(default_factory=set)
    decays: set[str] = field(default_factory=set)

    def cells(self) -> tuple[str, ...]:
        """Return the text of each column."""
        ends = dict.fromkeys((min(self.rates), max(self.rates))) if self.rates else ()
        rates = " to ".join(f"{rate:.3g}" for rate in ends) or "-"
        since = ", ".join(time.removeprefix("step ") for time in self.since) or "frozen"
        decays = ", ".join(sorted(self.decays)) or "-"
        return self.name, f"{self.parameters:,}", f"{self.trainable:,}", since, rates, decays

    def line(self) -> str:
        """Return the row as a line of the log."""
        name, parameters, trainable, _, rates, decays = self.cells()
        if not self.trainable:
            return f"{name}: {parameters} parameters, frozen"
        text = f"{name}: {trainable} of {parameters} parameters trainable from {', '.join(self.since)}"
        return f"{text}, learning rate {rates}, weight decay {decays}"


def parameter_rows(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stages: Sequence[UnfreezeStage] = (),
    l2_sp: Mapping[str, float] | None = None,
) -> list[ParameterRow]:
    """Return the rows from the stem of the backbone to the head.

    Args:
        model: the model; all parameters of ``stages`` are trainable.
        optimizer: optimizer of the model.
        stages: parameters that are unfrozen later.
        l2_sp: strength of L2-SP for each parameter that has it instead of weight decay.
    """
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    later = {name: str(one.moment) for one in stages for name in one.names}
    parts = {f"backbone.{prefix}": name for name, group in backbone_groups(model) for prefix in group}
    table = {name: ParameterRow(name) for name in parts.values()}
    for name, parameter in model.named_parameters():
        part = next((parts[prefix] for prefix in parts if within(name, [prefix])), name.partition(".")[0])
        row = table.setdefault(part, ParameterRow(part))
        row.parameters += parameter.numel()
        if (group := settings.get(id(parameter))) is None:
            continue
        row.trainable += parameter.numel()
        row.rates.add(float(group["initial_lr"]))
        alpha = (l2_sp or {}).get(name)
        row.decays.add(f"{group['weight_decay']:g}" if alpha is None else f"L2-SP {alpha:g}")
        if (since := later.get(name, "step 0")) not in row.since:
            row.since.append(since)
    return list(table.values())


def parameter_table(rows: Sequence[ParameterRow]) -> Table:
    """Return the rows and their sum as a rich table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="trainable parameters", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("part", "from step") else "right")
    for row in rows:
        table.add_row(*row.cells())
    table.add_section()
    table.add_row("all", f"{sum(row.parameters for row in rows):,}", f"{sum(row.trainable for row in rows):,}")
    return table
