"""tldet: transfer learning for object detection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tldet.inference.predictor import Predictor as Predictor
    from tldet.inference.predictor import load as load
    from tldet.structures import Detections as Detections
    from tldet.workflows.evaluate import evaluate as evaluate
    from tldet.workflows.finetune import finetune as finetune

__version__ = "0.1.0"
_HOMES = {
    "load": "tldet.inference.predictor",
    "Predictor": "tldet.inference.predictor",
    "Detections": "tldet.structures",
    "evaluate": "tldet.workflows.evaluate",
    "finetune": "tldet.workflows.finetune",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: ``import tldet`` alone costs nothing."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tldet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
