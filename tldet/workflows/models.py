"""``tldet models``: table of detectors and backbones with parameters, GFLOPs and weights."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torchvision

from tldet.config import Config, read_config
from tldet.config.check import nearest
from tldet.config.files import find, shipped
from tldet.errors import ConfigError
from tldet.models.cost import backbone_cost, detector_cost
from tldet.models.zoo import CURATED, BackboneInfo, backbone_names, find_backbone
from tldet.runtime.images import fitted_size
from tldet.structures.image import Size
from tldet.system.output import write_json
from tldet.system.output_checks import check_outputs
from tldet.transfer.cached_weights import is_here
from tldet.transfer.interop.known import published_weights
from tldet.transfer.licenses import license_of
from tldet.workflows.command_requests import ModelsRequest
from tldet.workflows.requests import takes
from tldet.workflows.training.choose import usual_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BACKBONE_SIZE = (224, 224)  # input size of published costs of classifiers
COCO_IMAGE = (480, 640)  # size of most images of COCO
CONVENTION = (
    "GFLOPs as in papers and model zoos: 10^9 multiply-adds of convolutions, matrix products and attention per image "
    "(a profiler counts two operations each). Detectors: a 640x480 image resized for testing, second stage with all "
    "proposals, without masks. Backbones: without classifier."
)
_PUBLISHED = re.compile(r"Published(?: weights)?: box AP ([\d.]+)(?:, mask AP ([\d.]+))? on COCO val2017 \(([^);]+)")


@dataclass(frozen=True)
class Row:
    """Row of the table and of the JSON.

    Attributes:
        name: value of ``--model``, ``--backbone`` or the config of ``tldet train``.
        kind: "recipe", "config" or "backbone".
        part: the backbone of a detector, the library of a backbone.
        parameters: number of parameters.
        multiply_adds: multiply-adds for one image of ``size``.
        size: (height, width).
        published: published metric with its source, or empty.
        weights: source of the backbone's pretrained weights, or None.
        here: the weights are on this machine.
        license: license of the published weights of a detector, otherwise of those of its backbone; empty if none is
            stated.
    """

    name: str
    kind: str
    part: str
    parameters: int
    multiply_adds: int
    size: Size
    published: str
    weights: str | None
    here: bool
    license: str


@takes(ModelsRequest)
def models(request: ModelsRequest) -> list[Row]:
    """List detectors and backbones with their cost; both kinds by default.

    Raises:
        ConfigError: no name matches the pattern, or the file cannot be written.
    """
    check_outputs([request.json], overwrite=request.overwrite)
    both = not request.detectors and request.backbones is None
    rows = [detector_row(name) for name in shipped()] if request.detectors or both else []
    if request.backbones is not None or both:
        rows += list(backbone_rows(_matching(request.backbones or "")))
    if request.console is not None:
        _show(rows, request.console)
    if request.json is not None:
        write_json(request.json, {"convention": CONVENTION, "models": [asdict(row) for row in rows]}, indent=2)
    return rows


def detector_row(name: str) -> Row:
    """Return the row of a shipped config or recipe."""
    config = read_config(name)
    model: dict[str, Any] = config["model"]
    size = test_size(config)
    parameters, cost = _cost(json.dumps(model, sort_keys=True), size)
    recipe = name.startswith("recipes/")
    source = model["backbone"].get("weights")
    return Row(
        name.removeprefix("recipes/"),
        "recipe" if recipe else "config",
        model["backbone"]["name"],
        parameters,
        cost,
        size,
        published_ap(find(name)),
        source,
        source is not None and is_here(source),
        license_of(published_weights(name) or source or ""),
    )


@lru_cache(maxsize=64)
def _cost(model: str, size: Size) -> tuple[int, int]:
    """Return parameters and multiply-adds of a ``model`` section, given as JSON."""
    return detector_cost(json.loads(model), size)


def backbone_rows(names: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of backbones; names that cannot be a backbone (fixed input size, ...) are left out."""
    for name in names:
        try:
            found = find_backbone(name)
            parameters, cost = backbone_cost(found.config(found.strides), BACKBONE_SIZE)
        except ConfigError:
            continue
        timm = "registry" if found.registered else "timm"
        library = "torchvision" if found.section["type"] == "TorchvisionBackbone" else timm
        here = found.weights is not None and is_here(found.weights)
        top1 = published_top1(found)
        terms = license_of(found.weights or "")
        yield Row(name, "backbone", library, parameters, cost, BACKBONE_SIZE, top1, found.weights, here, terms)


def test_size(config: Config) -> Size:
    """Return the padded (height, width) of a 640x480 image resized for testing."""
    steps = config.get("data.val.transforms") or []
    resize = next((step for step in steps if step["type"] == "Resize"), None)
    short, long = (resize["short"], resize["long"]) if resize else usual_size(config)
    height, width = fitted_size(COCO_IMAGE, short, long)
    return -(-height // 32) * 32, -(-width // 32) * 32


def published_ap(path: Path) -> str:
    """Return the published AP in the comment of a config, with its source; empty if there is none."""
    comment = " ".join(
        line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    found = _PUBLISHED.search(comment)
    if found is None:
        return ""
    mask = f", mask AP {found[2]}" if found[2] else ""
    return f"AP {found[1]}{mask} ({found[3]})"


def published_top1(found: BackboneInfo) -> str:
    """Return the ImageNet accuracy of torchvision's weights; empty for other weights."""
    kind, _, name = (found.weights or "").partition(":")
    if kind != "torchvision":
        return ""
    metrics = torchvision.models.get_weight(name).meta["_metrics"]
    return f"{metrics['ImageNet-1K']['acc@1']:.1f} % (torchvision)"


def _matching(pattern: str) -> Sequence[str]:
    if not pattern:
        return CURATED
    names = fnmatch.filter(backbone_names(), pattern)
    if not names:
        raise ConfigError(f"--backbones {pattern!r}: no such name; {nearest(pattern, backbone_names())}")
    return names


def _show(rows: Sequence[Row], console: Console) -> None:
    width = None if console.is_terminal else 190  # files and pipes have no width
    detectors = [row for row in rows if row.kind != "backbone"]
    backbones = [row for row in rows if row.kind == "backbone"]
    if detectors:
        console.print(_table("detectors (published: COCO val2017)", detectors, width, part="backbone"))
    if backbones:
        console.print(_table("backbones (published: ImageNet top-1)", backbones, width))
    console.print(CONVENTION, style="dim")


def _table(title: str, rows: Sequence[Row], width: int | None, part: str | None = None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", width=width)
    table.add_column("name", overflow="fold", min_width=14)
    if part:
        table.add_column(part, overflow="fold")
    for column in ("M params", "GFLOPs", "at"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("published", "weights", "license"):
        table.add_column(column, overflow="fold")
    for row in rows:
        numbers = (f"{row.parameters / 1e6:.1f}", f"{row.multiply_adds / 1e9:.2f}", f"{row.size[0]}x{row.size[1]}")
        about = (_short(row.published), _weights(row), row.license or "-")
        table.add_row(row.name, *([row.part] if part else []), *numbers, *about)
    return table


def _short(published: str) -> str:
    """Return a published metric with the short name of its source."""
    figure, paren, source = published.partition(" (")
    return f"{figure} ({source.rstrip(')').partition(',')[0]})" if paren else "-"


def _weights(row: Row) -> str:
    if row.weights is None:
        return "none"
    kind, _, name = row.weights.partition(":")
    if kind == "https":
        return f"{name.rpartition('/')[2].partition('#')[0]}, {'here' if row.here else 'download'}"
    tag = name.rpartition(".")[2] if kind in {"torchvision", "timm"} else name
    return f"{kind} {tag}, {'here' if row.here else 'download'}"
