"""View of a run as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tldet.engine.progress import duration
from tldet.text import counted
from tldet.visualize.text_plot import text_plot
from tldet.workflows.watch.run_state import RunState

_WIDE = 90  # characters of a terminal with two plots side by side
_PLOT = 8  # lines of a plot
_GAP = 3  # characters between plots
_VALIDATIONS, _WARNINGS = 5, 3  # numbers shown
_CLASSES = 12  # shown; of more classes, the best and the worst
_METRICS = ("AP", "AP50", "AP75", "bbox_AP", "top1", "top5", "val_loss")


def view_lines(run: RunState, width: int, *, blocks: bool = True) -> list[str]:
    """Return the complete view of a run.

    Args:
        run: the run.
        width: characters per line.
        blocks: draw plots with block characters; False: ASCII only.
    """
    lines = [f"{run.folder}: {run.text}"]
    if run.train:
        lines.append(step_text(run, run.train[-1]))
    lines += _plots(run, width, blocks)
    lines += validation_table(run)
    lines += _classes(run, width)
    lines += run.status.get("data", [])
    lines += _warnings(run)
    return [line.rstrip() for line in lines]


def step_text(run: RunState, record: Mapping[str, Any]) -> str:
    """Return the progress of the run at a training record."""
    time, total = record["time"], run.total
    parts = [f"step {record['step']:,}/{f'{total:,}' if total else '?'}"]
    if total:
        parts.append(f"{100 * record['step'] / total:.0f} %")
    parts += [f"epoch {record['epoch']:g}"] if record.get("epoch") is not None else []
    parts += [f"loss {record['loss']:.4g}"] if record.get("loss") is not None else ["loss not finite"]
    parts += [f"lr {record['lr']:.2e}"] if record.get("lr") is not None else []
    parts += [f"{time['images_per_second']:.1f} images/s"] if "images_per_second" in time else []
    parts += [f"peak {time['peak_mb']:,.0f} MB"] if time.get("peak_mb") else []
    if not run.ended and run.total != run.step:
        left = run.seconds_left
        parts.append("eta unknown" if left is None else f"eta {duration(left)}")
    return "  ".join(parts)


def _plots(run: RunState, width: int, blocks: bool) -> list[str]:
    """Return plots of the loss and of the main validation metric, side by side if the terminal is wide enough."""
    loss = [(one["step"], one["loss"]) for one in run.train if one.get("loss") is not None]
    metric = next((name for name in _METRICS if any(name in one for one in run.validations)), None)
    values = [(one["step"], one[metric]) for one in run.validations if metric and one.get(metric) is not None]
    both = [("loss", loss), (metric or "", [pair for pair in values if pair[1] >= 0])]
    shown = [(name, points) for name, points in both if len(points) > 1]
    side = (width - _GAP) // 2 if width >= _WIDE and len(shown) > 1 else width
    blocks_of_text = []
    for name, points in shown:
        plot = text_plot(*zip(*points, strict=True), width=side, height=_PLOT, blocks=blocks)
        blocks_of_text.append([f"{name} by training step", *plot])
    if side == width or len(blocks_of_text) < 2:
        return [line for block in blocks_of_text for line in block]
    return [f"{a:<{side}}{'':{_GAP}}{b}" for a, b in zip(*blocks_of_text, strict=True)]


def validation_table(run: RunState) -> list[str]:
    """Return a table of the last validations, in which the best one is marked."""
    shown = run.validations[-_VALIDATIONS:]
    names = [name for name in _METRICS if any(one.get(name) is not None for one in shown)]
    if not names:
        return []
    best, best_step = shown[-1].get("best"), shown[-1].get("best_step")
    lines = ["validation  " + "".join(f"{name:>10}" for name in names)]
    for one in shown:
        cells = "".join(f"{_value(one.get(name)):>10}" for name in names)
        lines.append(f"{one['step']:>10,}  {cells}{'  best' if one['step'] == best_step else ''}")
    if best is not None:
        lines.append(f"best so far: {best:.4g} at step {best_step:,}")
    return lines


def _value(value: float | None) -> str:
    return "-" if value is None or value == -1 else f"{value:.4g}"


def _classes(run: RunState, width: int) -> list[str]:
    """Return the AP of the classes in the last validation, best first."""
    last = run.status.get("last") or {}
    values = sorted((last.get("AP") or {}).items(), key=lambda pair: -pair[1])
    if not values:
        return []
    texts = [f"{name}: {ap:.3f}" for name, ap in values]
    if len(texts) > _CLASSES:
        half = _CLASSES // 2
        texts = [*texts[:half], f"... {len(texts) - 2 * half} more ...", *texts[-half:]]
    return _wrapped(f"AP by class at step {last['step']:,}:", texts, width)


def _wrapped(title: str, texts: Sequence[str], width: int) -> list[str]:
    return textwrap.wrap(f"{title} {', '.join(texts)}", max(width, 20), subsequent_indent="  ")


def _warnings(run: RunState) -> list[str]:
    """Return the last warnings."""
    warnings = [*run.status.get("warnings", []), *([f"log.jsonl: {run.problem}"] if run.problem else [])]
    hidden = len(warnings) - _WARNINGS
    more = [counted(hidden, "earlier warning")] if hidden > 0 else []
    return [*more, *(f"warning: {text}" for text in warnings[-_WARNINGS:])]
