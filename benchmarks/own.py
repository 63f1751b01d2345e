"""Prediction as in ``tldet predict``, in a process of its own; see :class:`.child.Served`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tldet.cli.process import import_without_compiler, keep_freed_memory, return_free_memory


def predicting(checkpoint: str, precision: str, inputs: str) -> Callable[[], object]:
    """Return a function that predicts on the images of a file."""
    keep_freed_memory()
    import_without_compiler()
    from tldet.inference.loading import load

    predictor = load(checkpoint, "cpu", precision)
    return_free_memory()
    images = list(torch.load(inputs, weights_only=True)["images"])
    return lambda: predictor.predict(images, 0.0, len(images))
