"""Detector heads, each whole in one file; importing this folder registers them."""

from tldet.models.heads.atss import ATSSHead
from tldet.models.heads.base import Head
from tldet.models.heads.cascade_rcnn import CascadeRCNNHead
from tldet.models.heads.dfine import DFineHead
from tldet.models.heads.faster_rcnn import FasterRCNNHead
from tldet.models.heads.fcos import FCOSHead
from tldet.models.heads.gfl import GFLHead
from tldet.models.heads.mask_rcnn import MaskRCNNHead
from tldet.models.heads.retinanet import RetinaNetHead

__all__ = [
    "ATSSHead",
    "CascadeRCNNHead",
    "DFineHead",
    "FCOSHead",
    "FasterRCNNHead",
    "GFLHead",
    "Head",
    "MaskRCNNHead",
    "RetinaNetHead",
]
