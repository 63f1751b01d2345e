"""Loading of a checkpoint or an exported detector for prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tldet.data.loader import Sample, collate
from tldet.engine.precision import Precision, choose
from tldet.inference import OVERLAP
from tldet.inference.predictor import Predictor, no_target
from tldet.inference.runtimes.exported import EXPORTED_SUFFIXES, load_exported, refuse_threads
from tldet.models.detector import Detector
from tldet.runtime.images import MAX_PIXELS, fitted_size
from tldet.runtime.scores import ScoreSettings
from tldet.system.device import pick_device
from tldet.transfer.restore import restore

_TRIAL = 480  # pixels; largest long side of the images with which the precision is chosen


def load(
    path: str | Path,
    device: str = "auto",
    precision: str = "auto",
    *,
    nms_per_class: bool | None = None,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    tiles: int | None = None,
    overlap: float = OVERLAP,
) -> Predictor:
    """Load the detector of a tldet checkpoint, or an exported detector, for prediction.

    Args:
        path: the checkpoint, or a file of ONNX (``.onnx``), OpenVINO (``.xml``), ``torch.export`` (``.pt2``) or
            TensorRT (``.engine``).
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        nms_per_class: see :class:`Predictor`; fixed in an exported detector.
        max_pixels: see :class:`Predictor`.
        threads: number of CPU threads of ONNX Runtime or OpenVINO; None: chosen by the runtime. Must be None for other
            files.
        tiles: see :class:`Predictor`.
        overlap: see :class:`Predictor`.

    Raises:
        CheckpointError: the file cannot be read.
        ConfigError: there is no such device, a package is missing, NMS cannot be changed, or an option does not
            apply to the file.
    """
    options: dict[str, Any] = {"nms_per_class": nms_per_class, "max_pixels": max_pixels, "tiles": tiles}
    options["overlap"] = overlap
    if Path(path).suffix in EXPORTED_SUFFIXES:
        exported = load_exported(path, device, precision, threads)
        stated = exported.metadata
        chosen = Precision(stated["precision"], reason=exported.name)
        options["scores"] = ScoreSettings.of(stated.get("scores"), stated["class_names"], str(path))
        return Predictor(exported, stated["category_ids"], **stated["input"], precision=chosen, **options)
    refuse_threads(path, threads)
    model, state = restore(path)
    target = pick_device(device)
    model.to(target)
    meta = state["meta"]
    chosen = choose_precision(model, target, precision, **meta["input"])
    options["scores"] = ScoreSettings.of(meta.get("scores"), meta["class_names"], str(path))
    return Predictor(model, meta["category_ids"], **meta["input"], precision=chosen, **options)


def choose_precision(model: Detector, device: torch.device, requested: str, short: int, long: int) -> Precision:
    """Choose the precision of prediction, by a speed test if the device supports several.

    Args:
        model: the detector, in eval mode.
        device: device of the model.
        requested: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        short: short side of the images; the test uses images of at most 480 pixels.
        long: limit of the long side.
    """
    height, width = fitted_size((short, long), min(short, _TRIAL), min(long, _TRIAL))
    samples = [Sample(torch.full((3, height, width), 128, dtype=torch.uint8), no_target(), (height, width))]
    batch = collate(samples).to(device)

    def trial() -> None:
        with torch.no_grad():
            model.predict(batch)

    return choose(model, device, requested, trial, f"predicting {height} x {width}")
