"""``tldet import``: convert a checkpoint of another toolkit to a tldet checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.coco.class_files import read_names
from tldet.config import Config, read_config
from tldet.errors import CheckpointError, ConfigError
from tldet.models.detector import Detector, build_detector
from tldet.system.output_checks import check_outputs
from tldet.text import counted
from tldet.transfer.class_match import few
from tldet.transfer.interop.adapt import adapted
from tldet.transfer.interop.classes import FileClasses, classes_of, coco_ids
from tldet.transfer.interop.foreign import Foreign, fill, read_foreign, settings_in, translate
from tldet.transfer.interop.known import KNOWN, Known, known_layout, layout_named
from tldet.transfer.interop.mmdet_config import MmdetSettings
from tldet.transfer.licenses import license_of
from tldet.transfer.safe_unpickle.archives import WRONG
from tldet.transfer.weights import LoadReport
from tldet.workflows.command_requests import ImportRequest
from tldet.workflows.requests import takes
from tldet.workflows.training.choose import usual_size
from tldet.workflows.training.meta import versions

log = logging.getLogger(__name__)
_NAMED = 5


@takes(ImportRequest)
def import_checkpoint(request: ImportRequest) -> Path:
    """Convert a foreign checkpoint to a tldet checkpoint, for :func:`tldet.load` and all commands.

    The file is an MMDetection 2.x or 3.x checkpoint or a state dict of a torchvision detector, also inside the
    checkpoint of a training script or as safetensors. Code in the file is never executed.

    Raises:
        CheckpointError: the file cannot be read or does not fit the model; nothing is written.
        ConfigError: ``model`` is unknown, or ``classes`` do not fit the checkpoint.
    """
    path, out, console = request.checkpoint, Path(request.out), request.console
    check_outputs([out], [path, *request.classes], overwrite=request.overwrite)
    given = read_names(request.classes) if request.classes else ()
    foreign = read_foreign(path)
    known = _known(foreign, request.model)
    config = read_config(known.config)
    settings = settings_in(foreign.content, known, foreign.layout, foreign.path)
    size = settings.input or _published_size(config)
    detector, section, classes, report = _converted(foreign, known, config["model"], settings, given)
    meta = {
        "class_names": list(classes.names),
        "category_ids": list(classes.ids),
        "input": size,
        "weights_source": f"{path} ({known.dialect})",
        "weights_license": license_of(str(path), len(classes.names)),
        "versions": versions(),
    }
    written = {**_sections(config, classes), "model": section}
    checkpoint.save(out, {"config": written, "meta": meta, "model": detector.state_dict(), "ema": None})
    for line in (f"{path}: {foreign.layout}", report.summary(), *_notes(foreign, classes, settings, size)):
        log.info("%s", line)
    if console:
        console.print(f"saved to {out}", markup=False, highlight=False)
    return out


def _converted(
    foreign: Foreign, known: Known, shipped: Mapping[str, Any], settings: MmdetSettings, given: Sequence[str]
) -> tuple[Detector, dict[str, Any], FileClasses, LoadReport]:
    """Return the detector with the file's weights, the ``model`` section, the classes, and the load report."""
    translated = translate(known, foreign.state, foreign.path)
    try:
        section = adapted(shipped, foreign.layout, translated, settings)
        classes = classes_of(known, foreign.content, section["head"]["num_classes"], given)
        detector = build_detector(section, classes.names)
    except (CheckpointError, ConfigError, *WRONG) as error:
        raise CheckpointError(f"{foreign.path}: {' '.join(str(error).split())}") from None
    report = fill(detector, translated, foreign, f"{known.dialect}'s {known.case} ({known.config})")
    return detector, section, classes, report


def _known(foreign: Foreign, model: str | None) -> Known:
    """Return the model: the user-specified one, or the recognized one."""
    if model is not None:
        return layout_named(model, foreign.layout)
    found = known_layout(foreign.layout)
    if found is None:
        cases = ", ".join(dict.fromkeys(known.case for known in KNOWN))
        keys = list(foreign.state)
        raise CheckpointError(
            f"{foreign.path}: its {counted(len(keys), 'tensor')} ({', '.join(keys[:2])}, ..., {keys[-1]}) match no "
            f"model that can be imported ({cases}); with --model NAME, the error lists the tensors that do not fit"
        )
    return found


def _published_size(config: Config) -> dict[str, int]:
    short, long = usual_size(config)
    published: dict[str, Any] = {"short": short, "long": long}
    resize = next((s for s in config.get("data.val.transforms") or [] if s["type"] == "Resize"), published)
    return {"short": resize["short"], "long": resize["long"]}


def _sections(config: Config, classes: FileClasses) -> Mapping[str, Any]:
    """Return the other sections of the shipped config; its ``data`` only if the classes are those of COCO."""
    data = dict(config.get("data") or {})
    if set(classes.names) != coco_ids().keys():
        data = {key: value for key, value in data.items() if key == "loader"}
    return {**config.data, "data": data}


def _notes(foreign: Foreign, classes: FileClasses, settings: MmdetSettings, size: Mapping[str, int]) -> list[str]:
    """Return notes on classes, input size and unused tensors of the file."""
    names = ", ".join(classes.names[:_NAMED]) + (", ..." if len(classes.names) > _NAMED else "")
    lines = [f"classes: {len(classes.names)} ({names}): {classes.source}", f"input: {size['short']} x {size['long']}"]
    lines += settings.notes
    if terms := license_of(str(foreign.path), len(classes.names)):
        lines.append(f"weights: {terms}")
    if "ema_state_dict" in foreign.content:
        lines.append("the averaged weights (EMA) are used: MMDetection stores them in state_dict")
    if foreign.averaged:
        lines.append(f"{counted(len(foreign.averaged), 'averaged tensor')} (ema_...) not used")
    if foreign.others:
        lines.append(f"{counted(len(foreign.others), 'tensor')} outside the detector not used: {few(foreign.others)}")
    if foreign.set_aside:
        most = foreign.set_aside.most_common()
        what = ", ".join(f"{count} {name}" for name, count in most[:_NAMED]) + (", ..." if len(most) > _NAMED else "")
        lines.append(f"{counted(sum(foreign.set_aside.values()), 'object')} of other Python classes ignored: {what}")
    return lines
