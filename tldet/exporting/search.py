"""Search for the parts of a network that can be quantized, by measured sensitivity.

Each part is quantized alone, and the detections on a few images are compared with those of the original. Parts that
change the detections too much stay in fp32, and all others are quantized. While the accuracy loss exceeds its limit,
the most sensitive parts, which make up half of the remaining sensitivity, return to fp32.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tldet.engine.progress import duration
from tldet.exporting.quantize import Quantizer
from tldet.text import counted

log = logging.getLogger(__name__)
PART_LIMIT = 0.1  # distance above which a part stays in fp32 from the start
_HALF = 0.5  # fraction of the remaining sensitivity that returns to fp32 in each round


@dataclass(frozen=True)
class SearchOptions:
    """Settings of a search.

    Attributes:
        calibration: number of calibration images.
        sensitivity: number of images on which sensitivity is measured.
        seconds: time limit; a quantization in progress is completed.
        measure: name of the accuracy loss, for messages.
    """

    calibration: int
    sensitivity: int
    seconds: float
    measure: str = "AP drop"


@dataclass
class Quantization:
    """Result of a search.

    Attributes:
        model: the quantized model.
        sensitivity: distance of the detections with only this part quantized, by part; parts without quantized
            operations are omitted.
        kept: parts that stay in fp32, with the reason.
        loss: accuracy loss of the quantized model; see :func:`search`.
        reached: the loss is within the limit.
        note: reason why it is not.
    """

    model: Any
    sensitivity: dict[str, float] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    loss: float = 0.0
    reached: bool = False
    note: str = ""

    def reason(self) -> str:
        """Return the reason why the loss exceeds the limit."""
        most = sorted((part for part in self.sensitivity if part not in self.kept), key=lambda p: -self.sensitivity[p])
        named = ", ".join(f"{part} {self.sensitivity[part]:.3f}" for part in most[:3])
        return f"int8 loses too much accuracy ({self.note}{'; most sensitive parts in int8: ' if named else ''}{named})"

    def summary(self) -> dict[str, Any]:
        """Return the sensitivities and the parts in fp32, for the metadata of the file."""
        return {"sensitivity": {part: round(value, 5) for part, value in self.sensitivity.items()}, "fp32": self.kept}


def search(
    quantizer: Quantizer,
    distance: Callable[[Any], float],
    loss: Callable[[Any], float],
    limit: float,
    options: SearchOptions,
) -> Quantization:
    """Quantize as many parts as the limit allows.

    Args:
        quantizer: the graph and the calibration images.
        distance: distance, from 0 to 1, of a model's detections from those of the original on a few images.
        loss: accuracy loss of a model, such as the drop in AP.
        limit: maximum allowed loss.
        options: settings.
    """
    end = time.monotonic() + options.seconds
    sensitivity, unknown = _sensitivities(quantizer, distance, options.sensitivity, end)
    kept = {part: f"sensitivity {value:.3f}" for part, value in sensitivity.items() if value > PART_LIMIT}
    found = None
    while quantized := [part for part in (*unknown, *sensitivity) if part not in kept]:
        begin = time.monotonic()
        log.info("quantizing %s on %s", counted(len(quantized), "part"), counted(options.calibration, "image"))
        found = Quantization(quantizer.quantize(quantized, options.calibration), sensitivity, dict(kept))
        found.loss = loss(found.model)
        found.reached = found.loss <= limit
        took = duration(time.monotonic() - begin)
        scores = counted(len(quantized), "part"), len(kept), options.measure, found.loss
        log.info("%s in int8, %d in fp32: %s %.4f (%s)", *scores, took)
        if found.reached:
            return found
        if time.monotonic() > end:
            found.note = f"time limit of {duration(options.seconds)} reached"
            return found
        worst = _worst({part: sensitivity.get(part, 0.0) for part in quantized})
        kept |= dict.fromkeys(worst, f"{options.measure} {found.loss:.4f} with it in int8")
    found = found or Quantization(quantizer.model, sensitivity, kept, loss(quantizer.model))
    found.note = "no combination tried is within the limit"
    return found


def _sensitivities(
    quantizer: Quantizer, distance: Callable[[Any], float], images: int, end: float
) -> tuple[dict[str, float], list[str]]:
    """Return the distance of the detections with one part quantized, by part, and the parts not measured.

    Parts are measured from the outputs to the inputs until the time limit.
    """
    found: dict[str, float] = {}
    parts = list(quantizer.parts)
    draft, begin = quantizer.quantize(parts, images, draft=True), time.monotonic()
    for number, part in enumerate(reversed(parts)):
        if time.monotonic() > end:
            log.warning("time limit reached; sensitivity of %s not measured", counted(len(parts) - number, "part"))
            return found, parts[: len(parts) - number]
        if (model := quantizer.only_part(part, draft)) is not None:
            found[part] = distance(model)
            left = duration((time.monotonic() - begin) / (number + 1) * (len(parts) - number - 1))
            log.info("sensitivity %d/%d: %s %.4f (eta %s)", number + 1, len(parts), part, found[part], left)
    return dict(reversed(found.items())), []


def _worst(sensitivity: Mapping[str, float]) -> list[str]:
    """Return the most sensitive parts, which make up half of the total sensitivity."""
    ranked = sorted(sensitivity, key=lambda part: -sensitivity[part])
    total, chosen = sum(sensitivity.values()), [ranked[0]]
    for part in ranked[1:]:
        if sum(sensitivity[one] for one in chosen) >= _HALF * total:
            break
        chosen.append(part)
    return chosen
