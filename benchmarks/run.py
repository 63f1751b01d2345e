"""``python -m benchmarks``: run suites, print and write results."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import environment, is_busy
from benchmarks.report import Suite
from benchmarks.suites import Bench, run_suite
from tldet.cli.process import keep_freed_memory
from tldet.errors import ConfigError
from tldet.system.output import write_json

if TYPE_CHECKING:
    from rich.console import Console


def benchmark(
    suites: Sequence[str],
    *,
    json: str | Path | None = None,
    repeats: int | None = None,
    quick: bool = False,
    models: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    data: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run suites one after the other.

    Args:
        suites: names from :data:`benchmarks.suites.SUITES`.
        json: output file of all numbers, rewritten after each suite; plots are written next to it as PNG.
        repeats: rounds per comparison.
        quick: small sizes and two rounds.
        models: recipes, by default all with a counterpart; also checkpoints and exported detectors for "infer".
        size: (height, width) of images.
        batch: batch size.
        data: dataset folder for the suite "data".
        console: shows progress and tables.

    Returns:
        ``environment`` and ``suites`` as in the JSON.

    Raises:
        ConfigError: an image side is below 32.
        DataError: the JSON cannot be written, or ``data`` cannot be used.
    """
    if size is not None and min(size) < 32:
        raise ConfigError(f"--size {size[0]} {size[1]}: each side must be at least 32")
    found = environment()
    result: dict[str, Any] = {"environment": found, "quick": quick, "suites": {}}
    _write(json, result)
    if console:
        _introduce(found, console)
    keep_freed_memory()
    for name in suites:
        with _folder() as folder, _progress(console, name) as show:
            bench = Bench(folder, quick, repeats, tuple(models), size, batch, Path(data) if data else None)
            bench.show = show
            start = time.perf_counter()
            suite = run_suite(name, bench)
            suite.seconds = time.perf_counter() - start
        if console:
            _show(suite, console)
        result["suites"][name] = suite.to_dict()
        _write(json, result)
        plot = suite.draw(Path(json).with_suffix(".png")) if json else None
        if plot and console:
            console.print(f"plot: {plot}", markup=False, highlight=False)
    return result


def _introduce(found: dict[str, Any], console: Console) -> None:
    load = ", ".join(f"{value:.2f}" for value in found["load"]) or "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    bf16 = "bf16" if found["bf16"] else "no bf16"
    lines = [
        f"{found['processor']}, {found['cores']} cores, {found['threads']} threads, {bf16}, load average {load}",
        f"tldet {found['tldet']}, Python {found['python']}, {versions}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False)
    if is_busy(found):
        text = "warning: other processes use this machine; times and ratios are unreliable"
        console.print(text, style="yellow", markup=False, highlight=False)


@contextmanager
def _folder() -> Iterator[Path]:
    """Create a folder for the suite with its own cache, so that precision is chosen anew."""
    with tempfile.TemporaryDirectory(prefix="tldet_benchmark_") as folder, cache_in(Path(folder) / "cache"):
        yield Path(folder)


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Let tldet keep its cache in a folder inside the ``with`` block."""
    before = os.environ.get("TLDET_CACHE")
    os.environ["TLDET_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TLDET_CACHE"]
        if before is not None:
            os.environ["TLDET_CACHE"] = before


@contextmanager
def _progress(console: Console | None, name: str) -> Iterator[Any]:
    """Show the current step on a terminal."""
    if console is None:
        yield lambda _: None
        return
    from rich.text import Text

    with console.status(Text(name)) as status:
        yield lambda text: status.update(Text(f"{name}: {text}"))


def _show(suite: Suite, console: Console) -> None:
    console.print(suite.table())
    for line in suite.notes():
        console.print(line, markup=False, highlight=False)
    console.print(f"{suite.name} took {suite.seconds:.0f} s", markup=False, highlight=False)


def _write(path: str | Path | None, result: dict[str, Any]) -> None:
    if path is not None:
        write_json(path, result, indent=1)
