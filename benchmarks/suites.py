"""Suites by name; nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.timing import Comparison, alternate

if TYPE_CHECKING:
    from benchmarks.report import Suite

SUITES = {
    "infer": "prediction on one image, compared with torchvision (about 5 minutes per model on 2 cores)",
    "train": "training step, compared with torchvision; overhead of the trainer (about 5 minutes per model)",
    "depthwise": "training step with and without rewritten depthwise convolutions (about 2 minutes per model)",
    "data": "JPEG to batch, compared with torchvision's transforms; reading annotations (about 6 minutes)",
    "eval": "COCO metrics of 500,000 detections, compared with pycocotools (about 5 minutes)",
    "startup": "startup of the command line, the import and training (about 3 minutes)",
    "growth": "growth of time and memory, with a plot next to --json (about 5 minutes)",
    "size": "annotations of 118,000 images, compared with pycocotools, and of 10 million objects (about 15 minutes)",
    "video": "decoding, detection, drawing and encoding, compared with detection alone (about 2 minutes)",
}
QUICK = "small sizes and two rounds, to test a suite in a minute or less"


@dataclass
class Bench:
    """Settings of a suite.

    Attributes:
        folder: temporary output folder.
        quick: small sizes, two rounds.
        repeats: rounds per comparison; None for the default of the suite.
        models: recipes; empty for all.
        size: (height, width) of the images; None for the default of the suite.
        batch: batch size; None for the default of the suite.
        data: dataset folder; None generates images.
        limit: seconds after which no further round of a comparison begins.
        show: shows the current step.
    """

    folder: Path
    quick: bool = False
    repeats: int | None = None
    models: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    batch: int | None = None
    data: Path | None = None
    limit: float = 90.0
    show: Callable[[str], None] = lambda _: None

    def rounds(self, usual: int) -> int:
        """Return the number of rounds of a comparison with a default of ``usual``."""
        return self.repeats or (2 if self.quick else usual)

    def compare(
        self,
        name: str,
        ours: Callable[[], object],
        theirs: Callable[[], object],
        rounds: int = 15,
        *,
        warmup: int = 1,
        self_timed: bool = False,
    ) -> Comparison:
        """Time both sides in turns within the limit; show each round."""
        count = self.rounds(rounds)

        def on_round(number: int) -> None:
            self.show(f"{name}: {'warming up' if number < 0 else f'round {number + 1} of {count}'}")

        return alternate(ours, theirs, count, warmup=warmup, limit=self.limit, self_timed=self_timed, on_round=on_round)


def run_suite(name: str, bench: Bench) -> Suite:
    """Run one suite by its name."""
    suite: Suite = import_module(f"benchmarks.{name}").run(bench)
    return suite
