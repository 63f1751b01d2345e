"""Settings of the ``data`` section of a config that do not depend on the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tldet.config import require_range
from tldet.data.workers import worker_count
from tldet.errors import ConfigError

_MAX_WORKERS = 256  # processes of about 300 MB each; a mistyped number would exhaust the machine


@dataclass(frozen=True)
class LoaderSettings:
    """The ``data.loader`` section of a config.

    Attributes:
        batch_size: images per training batch; "auto" measures the largest one that fits on the GPU.
        eval_batch_size: images per validation batch.
        workers: loader processes; 0 loads in the main process, "auto" chooses (see
            :func:`~tldet.data.workers.worker_count`).
        group_aspect: keep wide and tall images in separate batches.

    Raises:
        ConfigError: a number is too small or too large.
    """

    batch_size: int | Literal["auto"] = 4
    eval_batch_size: int = 4
    workers: int | Literal["auto"] = "auto"
    group_aspect: bool = True

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value != "auto" and value < least:
                raise ConfigError(f"data.loader.{name} must be at least {least}, not {value}")
        if self.workers != "auto" and self.workers > _MAX_WORKERS:
            raise ConfigError(f"data.loader.workers must be at most {_MAX_WORKERS}, not {self.workers}")

    def fixed_batch_size(self) -> int:
        """Return the batch size.

        Raises:
            ConfigError: the batch size is "auto", which only training commands measure.
        """
        if self.batch_size == "auto":
            raise ConfigError("data.loader.batch_size='auto': only train and finetune measure it; set a number")
        return self.batch_size

    def worker_count(self, device: torch.device) -> int:
        """Return the number of loader processes for a model on ``device``."""
        return worker_count(device.type) if self.workers == "auto" else self.workers


@dataclass(frozen=True)
class SubsetSettings:
    """Subset of the images, stratified by class. Of two subsets with the same seed, the larger contains the smaller.

    Attributes:
        fraction: fraction of the images, above 0 and at most 1.
        seed: random seed.
    """

    fraction: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_range("fraction", self.fraction, "(0, 1]")


@dataclass(frozen=True)
class DatasetOptions:
    """Config keys of every dataset, whether or not its class takes them.

    Attributes:
        transforms: transforms of the samples.
        masks: the targets have masks, which the model needs.
        subset: subset of the images; None for all.
    """

    transforms: Sequence[Mapping[str, Any]] = ()
    masks: bool = False
    subset: SubsetSettings | None = None
