"""Search for pretrained weights on this machine, without a download and without reading weights."""

from __future__ import annotations

from tldet.errors import CheckpointError
from tldet.system.inputs import is_file
from tldet.transfer.downloads import cache_path
from tldet.transfer.sources import find_package, published_file, timm_path, torchvision_url

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def is_here(source: str) -> bool:
    """Return True if the weights of a source (see :mod:`tldet.transfer.sources`) are available without a network.

    Raises:
        CheckpointError: there is no such source.
    """
    kind, _, name = source.partition(":")
    if kind == "package":
        return _package_is_here(name)
    if kind == "torchvision":
        return is_file(cache_path(torchvision_url(name)))
    if kind == "timm":
        return _timm_is_here(name)
    if kind in {"hf", "dfine"}:
        return is_file(published_file(source)[1])
    if kind in {"http", "https"}:
        return is_file(cache_path(source.partition("#")[0]))
    return is_file(source)


def _package_is_here(name: str) -> bool:
    try:
        return find_package(name).is_file()
    except CheckpointError:
        return False


def _timm_is_here(name: str) -> bool:
    """Look for a file placed by the user, in the cache of the hub, and in that of torch."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    _, path = timm_path(name)
    config = timm.get_pretrained_cfg(name)
    hub = config.hf_hub_id
    if path.is_file() or (hub and any(isinstance(try_to_load_from_cache(hub, file), str) for file in _HUB_FILES)):
        return True
    return bool(config.url) and cache_path(config.url).is_file()
