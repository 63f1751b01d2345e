"""One of two processes of a run whose main process evaluates for longer than a step may take.

``python waiting_run.py SECONDS``, with the environment variables of torchrun: steps may take 1.5 seconds, and the main
process evaluates for SECONDS.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta

import torch

from tldet.engine import distributed

if __name__ == "__main__":
    seconds = float(sys.argv[1])
    distributed._STEP_TIMEOUT = timedelta(seconds=1.5)
    with distributed.process_group() as world:

        def evaluate() -> str:
            time.sleep(seconds)
            return "evaluated"

        before = world.sum(torch.ones(1))
        found = world.first(evaluate)
        after = world.sum(torch.ones(1))
    sys.stdout.write(f"{int(before)} {found} {int(after)}\n")
