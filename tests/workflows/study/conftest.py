"""Jobs, and a run that only writes down what a real one would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tldet.workflows.study.job import RUNS, Job, job_folder, write_result

MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """A job in the study of the test's folder."""

    def make(variant: str = "a", seed: int = 0, fraction: float = 1.0, **more: Any) -> Job:
        factors = {"variant": variant, "fraction": fraction, "seed": seed}
        folder = tmp_path / RUNS / job_folder(factors)
        images = round(200 * fraction)
        usual: dict[str, Any] = {"call": {"options": ["x=1"]}, "length": {"minutes": 3.0}, "val": ("v.json", "v")}
        return Job(factors, folder, images=images, data={"train": "hash"}, **{**usual, **more})

    return make


def pretend(job: Job, steps: int = 100, ap: float = 0.5, seconds: float = 60.0) -> dict[str, Any]:
    """Leave the result of a run that took so many steps, or those that its variant takes."""
    seed = int(job.factors["seed"])
    drawn = ap + np.random.default_rng(seed).normal(0, 0.01, 200)
    numbers = {"AP": ap, "AP50": min(1.0, ap + 0.3)}
    found = {"steps": job.steps or steps, "seconds": seconds, "numbers": numbers, "per_class": {}, "type": "bbox"}
    return write_result(job, {**found, "checkpoint": "best.pt", "resampled_ap": drawn.tolist()})
