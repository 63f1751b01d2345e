"""tldet: transfer learning for object detection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tldet.runtime import __version__ as __version__

if TYPE_CHECKING:
    from tldet.data.dataset import DetectionDataset as DetectionDataset
    from tldet.engine.callbacks import Callback as Callback
    from tldet.engine.trainer import Trainer as Trainer
    from tldet.errors import TldetError as TldetError
    from tldet.inference.loading import load as load
    from tldet.models.backbones.base import Backbone as Backbone
    from tldet.models.detector import Detector as Detector
    from tldet.models.heads.base import Head as Head
    from tldet.registry import BACKBONES as BACKBONES
    from tldet.registry import DATASETS as DATASETS
    from tldet.registry import HEADS as HEADS
    from tldet.registry import HOOKS as HOOKS
    from tldet.registry import NECKS as NECKS
    from tldet.registry import OPTIMIZERS as OPTIMIZERS
    from tldet.registry import TRANSFORMS as TRANSFORMS
    from tldet.structures.detections import Detections as Detections
    from tldet.structures.target import Target as Target
    from tldet.visualize.drawing import draw as draw
    from tldet.workflows.evaluate import evaluate as evaluate
    from tldet.workflows.export.export import export as export
    from tldet.workflows.predict.predict import predict as predict
    from tldet.workflows.study.api import study as study
    from tldet.workflows.test import test as test
    from tldet.workflows.training.finetune import finetune as finetune
    from tldet.workflows.training.train import train as train

__all__ = [
    "BACKBONES",
    "DATASETS",
    "HEADS",
    "HOOKS",
    "NECKS",
    "OPTIMIZERS",
    "TRANSFORMS",
    "Backbone",
    "Callback",
    "DetectionDataset",
    "Detections",
    "Detector",
    "Head",
    "Target",
    "TldetError",
    "Trainer",
    "draw",
    "evaluate",
    "export",
    "finetune",
    "load",
    "predict",
    "study",
    "test",
    "train",
]
_MODULES = {  # module of each public name
    **dict.fromkeys(("BACKBONES", "DATASETS", "HEADS", "HOOKS", "NECKS", "OPTIMIZERS", "TRANSFORMS"), "tldet.registry"),
    "Backbone": "tldet.models.backbones.base",
    "Callback": "tldet.engine.callbacks",
    "DetectionDataset": "tldet.data.dataset",
    "Detections": "tldet.structures.detections",
    "Detector": "tldet.models.detector",
    "Head": "tldet.models.heads.base",
    "Target": "tldet.structures.target",
    "TldetError": "tldet.errors",
    "Trainer": "tldet.engine.trainer",
    "draw": "tldet.visualize.drawing",
    "evaluate": "tldet.workflows.evaluate",
    "export": "tldet.workflows.export.export",
    "finetune": "tldet.workflows.training.finetune",
    "load": "tldet.inference.loading",
    "predict": "tldet.workflows.predict.predict",
    "study": "tldet.workflows.study.api",
    "test": "tldet.workflows.test",
    "train": "tldet.workflows.training.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import tldet`` takes no time."""
    if name not in _MODULES:
        raise AttributeError(f"module 'tldet' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
