"""Seeds, the state of random generators, and deterministic algorithms."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

SEEDS = 2**63  # number of different seeds


def mix_seed(*numbers: int) -> int:
    """Hash several numbers, such as (seed, step), to one seed in 0..SEEDS - 1."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(seed: int) -> None:
    """Seed the global generators of torch (all devices), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def capture_rng() -> dict[str, Any]:
    """Return the state of all global generators as tensors and plain containers."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(words), next_gauss],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Restore the state of :func:`capture_rng`; that of CUDA only if the number of devices is the same."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Use deterministic algorithms inside the ``with`` block; resuming is not bit-identical without them.

    Only on CPU: several operations of detectors have no deterministic version on CUDA.
    """
    if device.type != "cpu":
        yield
        return
    mode = torch.get_deterministic_debug_mode()
    debugging: Any = torch.utils.deterministic
    fill = debugging.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    debugging.fill_uninitialized_memory = False  # costs time
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        debugging.fill_uninitialized_memory = fill
