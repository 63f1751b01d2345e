"""A whole detector's weights as the start of another: tldet's own checkpoints, mmdet's and torchvision's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.config import build_settings, read_config
from tldet.errors import CheckpointError
from tldet.models.detector import Detector, Preprocess
from tldet.transfer.class_match import MatchSettings
from tldet.transfer.interop.adapt import same_input
from tldet.transfer.interop.classes import classes_of
from tldet.transfer.interop.foreign import foreign_in, layout_in, policy_in, translate
from tldet.transfer.interop.known import KeyLayout, Known, known_layout
from tldet.transfer.provenance import check_meta, of_classifier, refuse_classifier
from tldet.transfer.safe_unpickle.archives import Archive, SafeArchive, read_archive
from tldet.transfer.sources import State, download
from tldet.transfer.weights import LoadReport, load_detector


@dataclass(frozen=True)
class Start:
    """A whole detector in a file; its tensors are not read before they are asked for.

    Attributes:
        class_names: name of each class; None for one that the file does not name.
        preprocess: the ``model.preprocess`` it was trained with; None where the file does not say.
        strided_conv: likewise of ``model.backbone.strided_conv``; None also where it does not matter.
        backbone: name of its backbone.
        published: the ``model`` section of the shipped config that it looks like, for what the file does not say.
        weights: reads its tensors, in our names.
    """

    class_names: Sequence[str | None]
    preprocess: Mapping[str, Any] | None
    strided_conv: str | None
    backbone: str | None
    weights: Callable[[], State]
    published: Mapping[str, Any] = field(default_factory=dict)


def open_initial(path: Path) -> Start | None:
    """The detector in a weights file; None where it holds (anything else) a backbone.

    Raises:
        CheckpointError: it cannot be read, or is a detector that does not say its classes.
    """
    archive = read_archive(path)
    if isinstance(archive, SafeArchive):
        parts = ("backbone.", "neck.", "head.")
        if all(any(name.startswith(part) for name in archive.value) for part in parts):
            raise CheckpointError(
                f"{path}: a detector's weights alone, without its classes; give a .pt file of its run"
            )
    if isinstance(archive.value, Mapping) and archive.value.get("format") == checkpoint.FORMAT:
        return (
            None
            if of_classifier(archive.value)
            else _ours(path, archive.value, lambda: checkpoint.load_checkpoint(path))
        )
    layout = layout_in(archive)
    known = known_layout(layout)
    return _foreign(archive, layout, known) if known else None


def _ours(path: Path, outline: Mapping[str, Any], read: Callable[[], Mapping[str, Any]]) -> Start:
    """A tldet checkpoint, of which all but the tensors is here: its EMA weights where it has them."""
    check_meta(path, outline)
    try:
        names, model = outline["meta"]["class_names"], outline["config"]["model"]
        backbone, seen = model["backbone"], build_settings(Preprocess, model.get("preprocess", {}))
        preprocess = {"mean": [*seen.mean], "std": [*seen.std], "bgr": seen.bgr}
        stride = backbone.get("strided_conv", "3x3") if backbone["type"] == "TorchvisionBackbone" else None
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is no checkpoint of a detector ({type(error).__name__}: {error})") from None

    def weights() -> State:
        state = read()
        found: State = state.get("ema") or state["model"]
        return found

    return Start(names, preprocess, stride, backbone.get("name"), weights)


def _foreign(archive: Archive, layout: KeyLayout, known: Known) -> Start:
    policy = policy_in(archive.value, known, layout, archive.path)
    classes = classes_of(known, archive.value, layout.classes)

    def weights() -> State:
        return translate(known, foreign_in(archive).state, archive.path)

    published = read_config(known.config)["model"]
    return Start(classes.given, policy.preprocess, policy.strided_conv, layout.backbone, weights, published)


def init_from(model: Detector, path: str | Path, match: MatchSettings | None = None) -> LoadReport:
    """Fill a detector from a tldet checkpoint, see :func:`~tldet.transfer.weights.load_detector`.

    Raises:
        CheckpointError: it is none, nothing of it fits, or it was trained on images normalized otherwise.
    """
    state = checkpoint.load_checkpoint(path)
    refuse_classifier(path, state)
    return _fill(model, _ours(Path(path), state, lambda: state), str(path), match)


def load_initial(model: Detector, source: str, match: MatchSettings | None = None) -> LoadReport:
    """Fill a detector from a source (see :mod:`tldet.transfer.sources`) that holds a whole one.

    Raises:
        CheckpointError: the source cannot be had, holds no detector, nothing of it fits, or it was trained on images
            normalized otherwise.
    """
    start = open_initial(download(source))
    if start is None:
        raise CheckpointError(f"{source}: holds no detector; a backbone's weights belong into model.backbone.weights")
    return _fill(model, start, source, match)


def _fill(model: Detector, start: Start, source: str, match: MatchSettings | None) -> LoadReport:
    ours = asdict(model.preprocess)
    if start.preprocess is not None and not same_input(start.preprocess, ours):
        theirs = dict(start.preprocess)
        raise CheckpointError(f"{source}: trained with model.preprocess {theirs}, here it is {ours}; set it to theirs")
    stride = getattr(model.backbone, "strided_conv", None)
    if start.strided_conv and stride and start.strided_conv != stride:
        what = f"trained with model.backbone.strided_conv {start.strided_conv}, here it is {stride}"
        raise CheckpointError(f"{source}: {what}; set it to theirs")
    return load_detector(model, start.weights(), start.class_names, source, match)
