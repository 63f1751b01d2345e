"""The torchvision loop: a script of its own, in a process of its own.

The script takes ``TRAIN.json VAL.json IMAGES --val-images DIR --seed S`` and ``--steps N`` or ``--minutes M``, trains,
scores its detections with pycocotools, and prints ``steps N``.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tldet.system.output import write_json


def train(script: str, arguments: list[str], detections: str) -> dict[str, Any]:
    """Run the script in this process; write its detections and return the number of steps.

    Args:
        script: path of the script.
        arguments: its arguments.
        detections: output file, COCO results.

    Raises:
        ValueError: the script does not print its number of steps.
    """
    from pycocotools.coco import COCO

    original = COCO.loadRes

    def kept(self: Any, results: list[dict[str, Any]]) -> Any:
        write_json(detections, results)
        return original(self, results) if results else _without_detections(self)

    COCO.loadRes, sys.argv = kept, [script, *arguments]
    printed = io.StringIO()
    started = time.perf_counter()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(script, run_name="__main__")
    found = re.search(r"steps (\d+)", printed.getvalue())
    if found is None:
        raise ValueError(f"{script}: does not print 'steps N'")
    return {"steps": int(found[1]), "elapsed": time.perf_counter() - started}


def _without_detections(truth: Any) -> Any:
    """Return results without detections, at which pycocotools fails."""
    empty = type(truth)()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def loop_arguments(call: Mapping[str, Any], length: Mapping[str, float]) -> list[str]:
    """Return the arguments of the script for a run."""
    (unit, value), *_ = length.items()
    paths = [call["train"], call["val"], call["images"], "--val-images", call["val_images"]]
    return [
        *map(str, paths),
        "--seed",
        str(call["seed"]),
        f"--{unit}",
        f"{value:g}" if unit == "minutes" else str(int(value)),
    ]


def run_loop(script: Path, call: Mapping[str, Any], length: Mapping[str, float], detections: Path) -> dict[str, Any]:
    """Run the script in a new process; see :func:`train`.

    Raises:
        TrainingError: the script failed.
    """
    from benchmarks.child import in_child
    from tldet.errors import TrainingError

    given: dict[str, Any] = {"script": str(script), "arguments": loop_arguments(call, length)}
    try:
        return in_child("benchmarks.quality.loop:train", **given, detections=str(detections))
    except RuntimeError as error:
        raise TrainingError(f"{script}: {str(error).splitlines()[-1]}") from None
