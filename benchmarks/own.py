"""Prediction as in ``tldet predict``, in a process of its own; see :class:`.child.Served`."""

from __future__ import annotations

from collections.abc import Callable

from tldet.cli.process import import_without_compiler, keep_freed_memory, return_free_memory


def predicting(checkpoint: str, precision: str, inputs: str) -> Callable[[], object]:
    """Return a function that predicts on the images of a file."""
    keep_freed_memory()
    import_without_compiler()
    import torch

    from tldet.inference.loading import load

    predictor = load(checkpoint, "cpu", precision)
    return_free_memory()
    images = list(torch.load(inputs, weights_only=True)["images"])
    return lambda: predictor.predict(images, 0.0, len(images))


def predicting_on(file: str, inputs: str) -> Callable[[], object]:
    """Return a function that predicts with a checkpoint or an exported detector on an array (N, H, W, 3) of images."""
    keep_freed_memory()
    import_without_compiler()
    import numpy as np

    from tldet.inference.loading import load

    predictor = load(file, "cpu")
    return_free_memory()
    images = list(np.load(inputs))
    return lambda: predictor.predict(images, 0.0, len(images))


def predicting_without_torch(file: str, inputs: str) -> Callable[[], object]:
    """Return the same function for an exported detector in tldet-runtime."""
    import numpy as np

    from tldet.runtime.detector import NumpyDetector

    detector = NumpyDetector(file, "cpu")
    images = list(np.load(inputs))
    return lambda: detector(images, 0.0, len(images))
