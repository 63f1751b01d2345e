"""Arguments of ``python -m benchmarks quality``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tldet.workflows.options import ABOVE_0, option
from tldet.workflows.requests import Request

DATASETS = {
    "bccd": "blood cells, train and test split",
    "voc": "30 images of Pascal VOC, two thirds for training",
    "digits": "generated: handwritten digits on photographs",
    "aerial": "generated: small vehicles in large images",
    "cards": "generated: corner indices of 52 playing cards",
}
SHARED = Path(__file__).resolve().parents[3] / "shared"  # next to the checkout
ONE_SEED_FROM = 10.0  # minutes


@dataclass(frozen=True, kw_only=True)
class QualityRequest(Request):
    """Arguments of the benchmark."""

    out: str | Path = option("output directory; the same command resumes", default="runs/quality", metavar="DIR")
    datasets: Sequence[str] = option(
        f"datasets: {'; '.join(f'{name} ({text})' for name, text in DATASETS.items())} (default: all)",
        default=tuple(DATASETS),
        choices=tuple(DATASETS),
        many=True,
    )
    budgets: Sequence[float] = option(
        "training times in minutes (default: 1 3 10)", float, default=(1.0, 3.0, 10.0), metavar="M", interval=ABOVE_0,
        many=True,
    )  # fmt: skip
    seeds: Sequence[int] = option(
        f"random seeds (default: 0 1 2); budgets of {ONE_SEED_FROM:g} minutes and more use the first one only",
        int,
        default=(0, 1, 2),
        metavar="S",
        many=True,
    )
    all_seeds: bool = option("use all seeds for all budgets", bool)
    variant: Sequence[str] = option(
        "further variant NAME=KEY=VALUE[,KEY=VALUE...], with options of tldet finetune (model, input-size, lr, ...) or "
        "config keys, as for tldet study variants; repeatable",
        metavar="VARIANT",
        repeated=True,
    )
    reference: str | None = option(
        "variant that the others are compared with (default: torchvision, or tldet without it)", metavar="NAME"
    )
    baseline: str | Path = option(
        "script of the torchvision loop, or 'none' (default: ../shared/baseline/torchvision_loop.py)",
        default=SHARED / "baseline" / "torchvision_loop.py",
        metavar="FILE",
    )
    data_root: str | Path = option(
        "folder that contains bccd/ and voc_formats/ (default: ../shared/data)", default=SHARED / "data", metavar="DIR"
    )
    speed: float | None = option(
        "steps per minute of all variants on all datasets (default: measured for each before the first run)",
        float,
        metavar="N",
        interval=ABOVE_0,
    )
    speed_minutes: float = option(
        "duration of a measurement of the speed (default: 1)", float, default=1.0, metavar="M", interval=ABOVE_0
    )
    any_load: bool = option("measure the speed although other processes use the machine", bool)
    quick: bool = option("generate a few small images only, to test the command", bool)

    @property
    def folder(self) -> Path:
        """The output directory."""
        return Path(self.out)

    @property
    def script(self) -> Path | None:
        """Script of the torchvision loop; None without it."""
        return None if str(self.baseline) == "none" else Path(self.baseline)

    def seeds_of(self, minutes: float) -> Sequence[int]:
        """Return the seeds of a budget."""
        return self.seeds if self.all_seeds or minutes < ONE_SEED_FROM else self.seeds[:1]
