"""Choice of the parts of a network that are quantized, by measured sensitivity.

Each part is quantized alone, and the detections on a few images are compared with those of the original. Parts that
change them much stay in fp32. If the result still loses too much, the most sensitive of the remaining parts follow,
half of the remaining sensitivity at a time.
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
PART_LIMIT = 0.1  # distance above which a part stays in fp32 from the beginning
_HALF = 0.5  # fraction of the remaining sensitivity that one round removes


@dataclass(frozen=True)
class SearchOptions:
    """Effort of a search.

    Attributes:
        calibration: number of images for calibration.
        probes: number of images for sensitivity.
        seconds: time limit; the quantization that is in progress is completed.
    """

    calibration: int
    probes: int
    seconds: float


@dataclass
class Quantization:
    """Result of a search.

    Attributes:
        model: the quantized model.
        sensitivity: distance of the detections with one part quantized, by part; parts without quantized operations are
            left out.
        kept: parts that stay in fp32, with the reason.
        loss: loss of the quantized model; see :func:`search`.
        reached: the loss is within the limit.
        note: reason if it is not.
    """

    model: Any
    sensitivity: dict[str, float] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    loss: float = 0.0
    reached: bool = False
    note: str = ""

    def reason(self) -> str:
        """Return why the loss is too large."""
        most = sorted((part for part in self.sensitivity if part not in self.kept), key=lambda p: -self.sensitivity[p])
        named = ", ".join(f"{part} {self.sensitivity[part]:.3f}" for part in most[:3])
        return f"int8 loses too much ({self.note}{'; most sensitive parts in int8: ' if named else ''}{named})"

    def summary(self) -> dict[str, Any]:
        """Return sensitivities and parts in fp32 as plain values, for the metadata of the file."""
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
        distance: distance of the detections of a model from those of the original on a few images, from 0 to 1.
        loss: loss of a model, such as the drop of AP.
        limit: largest allowed loss.
        options: effort.
    """
    end = time.monotonic() + options.seconds
    sensitivity, unknown = _sensitivities(quantizer, distance, options.probes, end)
    kept = {part: f"sensitivity {value:.3f}" for part, value in sensitivity.items() if value > PART_LIMIT}
    found = None
    while quantized := [part for part in (*unknown, *sensitivity) if part not in kept]:
        begin = time.monotonic()
        log.info("quantizing %s on %s", counted(len(quantized), "part"), counted(options.calibration, "image"))
        found = Quantization(quantizer.quantize(quantized, options.calibration), sensitivity, dict(kept))
        found.loss = loss(found.model)
        found.reached = found.loss <= limit
        took = duration(time.monotonic() - begin)
        log.info("%s in int8, %d in fp32: loss %.4f (%s)", counted(len(quantized), "part"), len(kept), found.loss, took)
        if found.reached:
            return found
        if time.monotonic() > end:
            found.note = f"the time limit of {duration(options.seconds)} is reached"
            return found
        worst = _worst({part: sensitivity.get(part, 0.0) for part in quantized})
        kept |= dict.fromkeys(worst, f"loss {found.loss:.4f} with it in int8")
    found = found or Quantization(quantizer.model, sensitivity, kept, loss(quantizer.model))
    found.note = "every single part loses too much"
    return found


def _sensitivities(
    quantizer: Quantizer, distance: Callable[[Any], float], images: int, end: float
) -> tuple[dict[str, float], list[str]]:
    """Return the distance of the detections with one part quantized, by part, and the parts that were not measured.

    Parts are measured from the outputs to the inputs, as long as there is time.
    """
    found: dict[str, float] = {}
    parts = list(quantizer.parts)
    draft, begin = quantizer.quantize(parts, images, draft=True), time.monotonic()
    for number, part in enumerate(reversed(parts)):
        if time.monotonic() > end:
            log.warning("time limit reached: the sensitivity of %s is unknown", counted(len(parts) - number, "part"))
            return found, parts[: len(parts) - number]
        if (model := quantizer.only(part, draft)) is not None:
            found[part] = distance(model)
            left = duration((time.monotonic() - begin) / (number + 1) * (len(parts) - number - 1))
            log.info("sensitivity %d/%d: %s %.4f (eta %s)", number + 1, len(parts), part, found[part], left)
    return dict(reversed(found.items())), []


def _worst(sensitivity: Mapping[str, float]) -> list[str]:
    """Return the most sensitive parts, which make up half of the sum of all."""
    ranked = sorted(sensitivity, key=lambda part: -sensitivity[part])
    total, chosen = sum(sensitivity.values()), [ranked[0]]
    for part in ranked[1:]:
        if sum(sensitivity[one] for one in chosen) >= _HALF * total:
            break
        chosen.append(part)
    return chosen
