"""Files that one reads to follow a fine-tuning from its arguments to the first training step: ``DATA OUT``, as JSON.

``passed``: files of the functions that get the request, the config or the run made of them, and of those that are under
way when the first step begins. ``called``: all files of which any function was called.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from tldet.config import Config
from tldet.engine.step import Stepper
from tldet.workflows.requests import Request
from tldet.workflows.training.assemble import Run
from tldet.workflows.training.finetune import finetune

PACKAGE = Path(str(sys.modules["tldet"].__file__)).parent
TRAVELS = (Request, Config, Run)  # what the arguments become on their way
passed: set[str] = set()
called: set[str] = set()


@cache
def file_of(name: str) -> str | None:
    path = Path(name)
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else None


def note(frame: FrameType, event: str, _: Any) -> None:
    name = file_of(frame.f_code.co_filename) if event == "call" else None
    if name is None:
        return
    called.add(name)
    if any(isinstance(value, TRAVELS) for value in frame.f_locals.values()):
        passed.add(name)
    if frame.f_code is Stepper.__call__.__code__:
        sys.setprofile(None)
        under_way: FrameType | None = frame
        while under_way is not None:
            passed.update(filter(None, [file_of(under_way.f_code.co_filename)]))
            under_way = under_way.f_back


if __name__ == "__main__":
    sys.setprofile(note)
    options = ["data.loader.batch_size=2", "training.precision=fp32"]
    finetune(sys.argv[1], out=sys.argv[2], model="retinanet_lite0", steps=1, cfg_options=options, report=False)
    sys.setprofile(None)
    sys.stdout.write(json.dumps({"passed": sorted(passed), "called": sorted(called)}) + "\n")
