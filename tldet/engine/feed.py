"""The micro-batches of the next step, loaded while the device computes the current one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tldet.engine.distributed import World
from tldet.engine.out_of_memory import is_out_of_memory
from tldet.engine.state import mix
from tldet.engine.step import count_images
from tldet.errors import DataError


class Feed:
    """Loads the micro-batches of this process, step by step.

    Whether all processes could load theirs, and how many images they have, is summed over processes by the caller: with
    the loss of the step before, so that it costs nothing extra.

    Args:
        stream: micro-batches.
        accumulate: micro-batches per step.
        seed: seed of the run; each micro-batch gets the seed of its step.
        world: the processes of the run.
    """

    def __init__(self, stream: Iterator[Any], accumulate: int, seed: int, world: World) -> None:
        self._stream, self._accumulate, self._seed, self._world = stream, accumulate, seed, world
        self._step: int | None = None
        self._batches: list[Any] = []
        self._error: DataError | None = None
        self._totals: Sequence[int] | None = None

    def load(self, step: int) -> None:
        """Load the micro-batches of a step (the first is 0), once; an error is raised by :meth:`take`."""
        if self._step == step:
            return
        self._step, self._batches, self._totals = step, [], None
        try:
            for _ in range(self._accumulate):
                self._batches.append(next(self._stream))
                self._batches[-1].seed = mix(self._seed, step)
        except DataError as error:
            self._error = error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            text = f"out of memory while the images of step {step + 1} were loaded: use fewer --workers or a smaller"
            self._error = DataError(f"{text} --batch-size")

    def counts(self) -> list[int]:
        """Return the numbers to sum over processes: of errors, and of images."""
        return [int(self._error is not None), count_images(self._batches)]

    def agree(self, totals: Sequence[int]) -> None:
        """Take the sums of :meth:`counts` over processes."""
        self._totals = totals

    def take(self, step: int) -> tuple[list[Any], int]:
        """Return the micro-batches of a step, and the number of images of all processes.

        Raises:
            DataError: some process cannot read an image.
        """
        if self._step != step or self._totals is None:
            self.load(step)
            self.agree(self._world.totals(*self.counts()))
        assert self._totals is not None
        failed, images = self._totals
        if failed and (error := self._world.first_error(self._error)) is not None:
            raise error
        return self._batches, images
