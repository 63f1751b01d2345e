"""The state dict inside a checkpoint, and its names without what training tools put around and before them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tldet.errors import CheckpointError
from tldet.transfer.archives import Archive
from tldet.transfer.storages import Stored
from tldet.transfer.unpickle import Array, StandIn

log = logging.getLogger(__name__)
AVERAGED = ("ema", "model_ema", "ema_model", "state_dict_ema", "averaged_model")
WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "module", "shadow", "net", "network", "weights")
# Names that torch.compile, FSDP and activation checkpointing put in front of the modules they wrap, at any depth.
WRAPPING = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
PARTS = ("backbone", "neck", "head", "rpn", "roi_heads", "bbox_head", "rpn_head", "roi_head", "mask_head")
DEEPEST = 6  # dictionaries inside one another


def state_in(archive: Archive) -> dict[str, Any]:
    """The state dict of a file, without the names that :data:`WRAPPING` lists.

    Averaged weights (``ema``) are preferred to the ones they average, as in prediction.

    Raises:
        CheckpointError: the file holds none.
    """
    value, trail = archive.value, list[str]()
    while isinstance(value, Mapping) and len(trail) < DEEPEST and (name := _wrapper(value)) is not None:
        value, trail = value[name], [*trail, name]
    if not isinstance(value, Mapping):
        what = f"a {type(value).__name__}"
        if isinstance(value, StandIn):
            what = f"a pickled {value.name}, which was not run,"
        raise CheckpointError(f"{archive.path}: holds {what} where a state dict was expected; save model.state_dict()")
    if any(name in AVERAGED for name in trail):
        log.info("%s: the averaged weights are taken (%s)", archive.path, ".".join(trail))
    return {_unwrapped(str(name)): item for name, item in value.items() if isinstance(name, (str, int))}


def _wrapper(value: Mapping[Any, Any]) -> str | None:
    """The entry of a checkpoint that holds the weights; None where the checkpoint itself does."""
    inner = [name for name, item in value.items() if isinstance(name, str) and _holds_tensors(item, DEEPEST)]
    known = next((name for name in (*AVERAGED, *WRAPPERS) if name in inner), None)
    if known is not None or any(isinstance(item, (Stored, Array)) for item in value.values()):
        return known
    others = [name for name in inner if "optim" not in name]
    return others[0] if len(others) == 1 else None


def _holds_tensors(item: Any, depth: int) -> bool:
    """Whether a dictionary has tensors under names, or holds another that does."""
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
    """What stands before the names of a detector's parts: ``model.``, ``module.``, ...; of several, the fullest."""
    fitting: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts[:-1]):
            if part in PARTS:
                fitting[".".join([*parts[:place], ""]) if place else ""] += 1
                break
    return fitting.most_common(1)[0][0] if fitting else ""
