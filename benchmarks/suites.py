"""The suites by name; nothing heavy is imported here, because ``--help`` shows them."""

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
    "infer": "one image through a detector, beside torchvision's (about 5 minutes a model on 2 cores)",
    "train": "one training step, beside torchvision's; the trainer's own part (about 5 minutes a model)",
    "data": "JPEG to batch, beside torchvision's transforms; reading annotations (about 6 minutes)",
    "eval": "COCO numbers of 500,000 detections, beside pycocotools (about 5 minutes)",
    "startup": "the command line, the import, the first step (about 3 minutes)",
    "growth": "time and memory over the size of the work, with a plot beside --json (about 5 minutes)",
    "video": "decode, detect, draw and encode, beside detection alone (about 2 minutes)",
}
QUICK = "smaller sizes and fewer rounds: each suite takes a minute or less, and its numbers only say that it works"


@dataclass
class Bench:
    """How a suite is to be run.

    Attributes:
        folder: what the suite writes goes there; removed afterwards.
        quick: small sizes, two rounds.
        repeats: rounds; None takes each suite's own number.
        models: recipes; empty takes all that are known.
        size: (height, width) of the images of a model; None takes each suite's own.
        batch: images at a time; None takes each suite's own.
        data: a COCO-format folder whose images are read; None generates some.
        limit: seconds after which a comparison takes no further round.
        tell: shows what is being done.
    """

    folder: Path
    quick: bool = False
    repeats: int | None = None
    models: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    batch: int | None = None
    data: Path | None = None
    limit: float = 90.0
    tell: Callable[[str], None] = lambda _: None

    def rounds(self, usual: int) -> int:
        """Rounds of a comparison that by default takes ``usual``."""
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
        """Both sides in turns, within the limit, told round by round."""
        count = self.rounds(rounds)

        def told(number: int) -> None:
            self.tell(f"{name}: {'warming up' if number < 0 else f'round {number + 1} of {count}'}")

        return alternate(ours, theirs, count, warmup=warmup, limit=self.limit, self_timed=self_timed, told=told)


def run_suite(name: str, bench: Bench) -> Suite:
    """Run one suite by its name."""
    suite: Suite = import_module(f"benchmarks.{name}").run(bench)
    return suite
