"""``tldet import``: a detector that mmdet or torchvision trained, as a tldet checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet import checkpoint
from tldet.config import Config, read_config
from tldet.errors import CheckpointError, ConfigError
from tldet.models.detector import Detector, build_detector
from tldet.transfer.class_match import few
from tldet.transfer.interop.adapt import adapted
from tldet.transfer.interop.classes import FileClasses, classes_of, coco_ids, read_names
from tldet.transfer.interop.foreign import Foreign, fill, policy_in, read_foreign, translate
from tldet.transfer.interop.known import KNOWN, Known, known_layout, layout_named
from tldet.transfer.interop.mmdet_config import Policy
from tldet.transfer.safe_unpickle.archives import WRONG
from tldet.transfer.weights import LoadReport
from tldet.workflows.training.choose import usual_size
from tldet.workflows.training.parts import versions

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
_NAMED = 5


def import_checkpoint(
    path: str | Path,
    *,
    out: str | Path,
    model: str | None = None,
    classes: Sequence[str] = (),
    console: Console | None = None,
) -> Path:
    """Convert a foreign checkpoint to a tldet checkpoint, for :func:`tldet.load` and all commands.

    Args:
        path: an MMDetection 2.x or 3.x checkpoint or a state dict of a torchvision detector, also inside the
            checkpoint of a training script or as safetensors. No code in it is run.
        out: output file.
        model: name of the model (``faster_rcnn``, a recipe, ...), if the keys do not identify it or to verify it.
        classes: class names in the order of the classifier's rows, or one file with them; by default those in the
            checkpoint.
        console: shows the recognized model and how each tensor was used.

    Raises:
        CheckpointError: the file cannot be read or does not fit the model; nothing is written.
        ConfigError: ``model`` is unknown, or ``classes`` do not fit the checkpoint.
    """
    given = read_names(classes) if classes else ()
    foreign = read_foreign(path)
    known = _known(foreign, model)
    config = read_config(known.config)
    policy = policy_in(foreign.content, known, foreign.layout, foreign.path)
    size = policy.input or _published_size(config)
    detector, section, named_classes, report = _converted(foreign, known, config["model"], policy, given)
    meta = {
        "class_names": list(named_classes.names),
        "category_ids": list(named_classes.ids),
        "input": size,
        "weights_source": f"{path} ({known.dialect})",
        "versions": versions(),
    }
    written = {**_sections(config, named_classes), "model": section}
    checkpoint.save(out, {"config": written, "meta": meta, "model": detector.state_dict(), "ema": None})
    for line in (f"{path}: {foreign.layout}", report.summary(), *_notes(foreign, named_classes, policy, size)):
        log.info("%s", line)
    if console:
        console.print(f"written: {out}", markup=False, highlight=False)
    return Path(out)


def _converted(
    foreign: Foreign, known: Known, shipped: Mapping[str, Any], policy: Policy, given: Sequence[str]
) -> tuple[Detector, dict[str, Any], FileClasses, LoadReport]:
    """Return the detector with the file's weights, the ``model`` section, the classes, and the load report."""
    translated = translate(known, foreign.state, foreign.path)
    try:
        section = adapted(shipped, foreign.layout, translated, policy)
        classes = classes_of(known, foreign.content, section["head"]["num_classes"], given)
        detector = build_detector(section, classes.names)
    except (CheckpointError, ConfigError, *WRONG) as error:
        raise CheckpointError(f"{foreign.path}: {' '.join(str(error).split())}") from None
    report = fill(detector, translated, foreign, f"{known.dialect}'s {known.case} ({known.config})")
    return detector, section, classes, report


def _known(foreign: Foreign, model: str | None) -> Known:
    """The table's entry: as asked, else as recognized."""
    if model is not None:
        return layout_named(model, foreign.layout)
    found = known_layout(foreign.layout)
    if found is None:
        cases = ", ".join(dict.fromkeys(known.case for known in KNOWN))
        keys = list(foreign.state)
        raise CheckpointError(
            f"{foreign.path}: its {len(keys)} tensors ({', '.join(keys[:2])}, ..., {keys[-1]}) are none of the models "
            f"that can be imported ({cases}); --model NAME says what does not fit"
        )
    return found


def _published_size(config: Config) -> dict[str, int]:
    short, long = usual_size(config)
    resize = next((s for s in config.get("data.val.transforms") or [] if s["type"] == "Resize"), {})
    return {"short": resize.get("short", short), "long": resize.get("long", long)}


def _sections(config: Config, classes: FileClasses) -> Mapping[str, Any]:
    """The other sections of the shipped config; its data only where they are the checkpoint's."""
    data = dict(config.get("data") or {})
    if set(classes.names) != coco_ids().keys():
        data = {key: value for key, value in data.items() if key == "loader"}
    return {**config.data, "data": data}


def _notes(foreign: Foreign, classes: FileClasses, policy: Policy, size: Mapping[str, int]) -> list[str]:
    """What else one should know of the file."""
    names = ", ".join(classes.names[:_NAMED]) + (", ..." if len(classes.names) > _NAMED else "")
    lines = [f"classes: {len(classes.names)} ({names}): {classes.source}", f"input: {size['short']} x {size['long']}"]
    lines += policy.notes
    if "ema_state_dict" in foreign.content:
        lines.append("the file was trained with an EMA: its state_dict, which was taken, holds the averaged weights")
    if foreign.averaged:
        lines.append(f"{len(foreign.averaged)} averaged tensors (ema_...) beside the state_dict's own were left out")
    if foreign.others:
        lines.append(f"{len(foreign.others)} tensors outside the detector left out: {few(foreign.others)}")
    if foreign.set_aside:
        most = foreign.set_aside.most_common()
        what = ", ".join(f"{count} {name}" for name, count in most[:_NAMED]) + (", ..." if len(most) > _NAMED else "")
        lines.append(f"{sum(foreign.set_aside.values())} objects of other code set aside unread: {what}")
    return lines
