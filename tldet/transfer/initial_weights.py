"""Initial weights from a detector checkpoint of tldet or another toolkit."""

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
from tldet.transfer.interop.foreign import foreign_in, layout_in, settings_in, translate
from tldet.transfer.interop.known import KeyLayout, Known, known_layout
from tldet.transfer.licenses import license_of
from tldet.transfer.provenance import check_meta, of_classifier, refuse_classifier
from tldet.transfer.safe_unpickle.archives import Archive, SafeArchive, read_archive
from tldet.transfer.sources import State, fetch_source
from tldet.transfer.weights import LoadReport, load_detector


@dataclass(frozen=True)
class DetectorFile:
    """Detector in a file, whose tensors are read on demand.

    Attributes:
        class_names: name of each class; None for a class without a name.
        preprocess: ``model.preprocess`` of its training; None if unknown.
        strided_conv: ``model.backbone.strided_conv`` of its training; None if unknown or without effect.
        backbone: name of its backbone.
        published: ``model`` section of the shipped config that fits the file, for settings that the file lacks.
        license: license of the weights; empty if none is stated.
        weights: reads the tensors, with tldet's names.
    """

    class_names: Sequence[str | None]
    preprocess: Mapping[str, Any] | None
    strided_conv: str | None
    backbone: str | None
    weights: Callable[[], State]
    published: Mapping[str, Any] = field(default_factory=dict)
    license: str = ""


def open_initial(path: Path) -> DetectorFile | None:
    """Open a weights file; return None if it contains no detector but, presumably, a backbone.

    Raises:
        CheckpointError: the file cannot be read, or is a detector without class names.
    """
    archive = read_archive(path)
    if isinstance(archive, SafeArchive):
        parts = ("backbone.", "neck.", "head.")
        if all(any(name.startswith(part) for name in archive.value) for part in parts):
            raise CheckpointError(
                f"{path}: contains the weights of a detector without its classes; use a .pt file of its run"
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


def _ours(path: Path, outline: Mapping[str, Any], read: Callable[[], Mapping[str, Any]]) -> DetectorFile:
    """Open a tldet checkpoint by its contents without tensors; its EMA weights are used if there are any."""
    check_meta(path, outline)
    try:
        names, model = outline["meta"]["class_names"], outline["config"]["model"]
        backbone, seen = model["backbone"], build_settings(Preprocess, model.get("preprocess", {}))
        preprocess = {"mean": [*seen.mean], "std": [*seen.std], "bgr": seen.bgr}
        stride = backbone.get("strided_conv", "3x3") if backbone["type"] == "TorchvisionBackbone" else None
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is not a checkpoint of a detector ({type(error).__name__}: {error})") from None

    def weights() -> State:
        state = read()
        found: State = state.get("ema") or state["model"]
        return found

    terms = str(outline["meta"].get("weights_license") or "")
    return DetectorFile(names, preprocess, stride, backbone.get("name"), weights, license=terms)


def _foreign(archive: Archive, layout: KeyLayout, known: Known) -> DetectorFile:
    settings = settings_in(archive.value, known, layout, archive.path)
    classes = classes_of(known, archive.value, layout.classes)

    def weights() -> State:
        return translate(known, foreign_in(archive).state, archive.path)

    published, terms = read_config(known.config)["model"], license_of(str(archive.path), layout.classes)
    return DetectorFile(
        classes.given, settings.preprocess, settings.strided_conv, layout.backbone, weights, published, terms
    )


def init_from(model: Detector, path: str | Path, match: MatchSettings | None = None) -> LoadReport:
    """Load the weights of a tldet checkpoint into a detector, see :func:`~tldet.transfer.weights.load_detector`.

    Raises:
        CheckpointError: the file is not a tldet checkpoint, no tensor fits, or its preprocessing differs.
    """
    state = checkpoint.load_checkpoint(path)
    refuse_classifier(path, state)
    return _load(model, _ours(Path(path), state, lambda: state), str(path), match)


def load_initial(model: Detector, source: str, match: MatchSettings | None = None) -> LoadReport:
    """Load the weights of a detector from a source (see :mod:`tldet.transfer.sources`).

    Raises:
        CheckpointError: the source is not available or contains no detector, no tensor fits, or its preprocessing
            differs.
    """
    file = open_initial(fetch_source(source))
    if file is None:
        raise CheckpointError(f"{source}: contains no detector; set model.backbone.weights to weights of a backbone")
    return _load(model, file, source, match)


def _load(model: Detector, file: DetectorFile, source: str, match: MatchSettings | None) -> LoadReport:
    current = asdict(model.preprocess)
    if file.preprocess is not None and not same_input(file.preprocess, current):
        trained = dict(file.preprocess)
        raise CheckpointError(f"{source}: set model.preprocess to that of its training, {trained} (now {current})")
    stride = getattr(model.backbone, "strided_conv", None)
    if file.strided_conv and stride and file.strided_conv != stride:
        trained_stride = f"that of its training, {file.strided_conv} (now {stride})"
        raise CheckpointError(f"{source}: set model.backbone.strided_conv to {trained_stride}")
    report = load_detector(model, file.weights(), file.class_names, source, match)
    report.license = license_of(source) or file.license
    return report
