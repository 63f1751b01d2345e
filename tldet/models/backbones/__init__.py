"""Backbones of torchvision and timm; importing this package registers them.

A backbone maps (B, 3, H, W) to one (B, C, ceil(H / stride), ceil(W / stride)) per level. Its ``channels`` and
``strides`` are known before weights are loaded. ``layer_groups`` names its parts from stem to top, for freezing,
layer-wise learning rates and tables.
"""

from tldet.models.backbones.base import Backbone, Norm, OutNorm, trainable, within
from tldet.models.backbones.custom import BackboneOptions, CustomBackbone, build_backbone
from tldet.models.backbones.timm_nets import TimmBackbone, ViTBackbone
from tldet.models.backbones.torchvision_nets import TorchvisionBackbone

__all__ = [
    "Backbone",
    "BackboneOptions",
    "CustomBackbone",
    "Norm",
    "OutNorm",
    "TimmBackbone",
    "TorchvisionBackbone",
    "ViTBackbone",
    "build_backbone",
    "trainable",
    "within",
]
