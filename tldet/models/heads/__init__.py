"""Detector heads, each whole in one file; importing this folder registers them."""

from tldet.models.heads.faster_rcnn import FasterRCNNHead
from tldet.models.heads.retinanet import RetinaNetHead

__all__ = ["FasterRCNNHead", "RetinaNetHead"]
