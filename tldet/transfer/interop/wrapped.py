"""Search for the state dict in a checkpoint, without the wrappers and name prefixes of training tools."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tldet.errors import CheckpointError
from tldet.transfer.safe_unpickle.archives import Archive
from tldet.transfer.safe_unpickle.objects import Array, StandIn
from tldet.transfer.safe_unpickle.storages import Stored

log = logging.getLogger(__name__)
AVERAGED = ("ema", "model_ema", "ema_model", "state_dict_ema", "averaged_model")
WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "module", "shadow", "net", "network", "weights")
# Prefixes of modules wrapped by torch.compile, FSDP and activation checkpointing, at any depth.
WRAPPING = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_PARTS = ("backbone", "neck", "head", "rpn", "roi_heads", "bbox_head", "rpn_head", "roi_head", "mask_head")
DEEPEST = 6  # nested dictionaries


def state_in(archive: Archive) -> dict[str, Any]:
    """Find the state dict of a file and remove the prefixes in :data:`WRAPPING` from its names.

    Averaged weights (``ema``) are preferred to the raw ones, as in prediction.

    Raises:
        CheckpointError: the file contains no state dict.
    """
    value, trail = archive.value, list[str]()
    while isinstance(value, Mapping) and len(trail) < DEEPEST and (name := _wrapper(value)) is not None:
        value, trail = value[name], [*trail, name]
    if not isinstance(value, Mapping):
        kind = f"a pickled {value.name}" if isinstance(value, StandIn) else f"a {type(value).__name__}"
        raise CheckpointError(f"{archive.path}: contains {kind}, not a state dict; save model.state_dict()")
    if any(name in AVERAGED for name in trail):
        log.info("%s: using averaged weights (%s)", archive.path, ".".join(trail))
    return {_unwrapped(str(name)): item for name, item in value.items() if isinstance(name, (str, int))}


def _wrapper(value: Mapping[Any, Any]) -> str | None:
    """Return the key of the weights in a checkpoint; None if it contains them directly."""
    inner = [name for name, item in value.items() if isinstance(name, str) and _holds_tensors(item, DEEPEST)]
    known = next((name for name in (*AVERAGED, *WRAPPERS) if name in inner), None)
    if known is not None or any(isinstance(item, (Stored, Array)) for item in value.values()):
        return known
    others = [name for name in inner if "optim" not in name]
    return others[0] if len(others) == 1 else None


def _holds_tensors(item: Any, depth: int) -> bool:
    """Return True if a dictionary holds named tensors, directly or in nested dictionaries."""
    if not isinstance(item, Mapping) or depth == 0:
        return False
    return any(
        (isinstance(name, str) and isinstance(one, (Stored, Array))) or _holds_tensors(one, depth - 1)
        for name, one in item.items()
    )


def _unwrapped(name: str) -> str:
    for wrapping in WRAPPING:
        name = name.replace(wrapping, "")
    return name


def detector_prefix(names: Iterable[str]) -> str:
    """Return the most frequent prefix of the parts of a detector (``model.``, ``module.``, ...)."""
    fitting: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for i, part in enumerate(parts[:-1]):
            if part in _PARTS:
                fitting[".".join([*parts[:i], ""]) if i else ""] += 1
                break
    return fitting.most_common(1)[0][0] if fitting else ""
