"""Registries: components by the names that configs use.

A component is a class (or function) decorated with ``@HEADS.register_module()`` or one of the other registries. Code
outside tldet is imported first, see :mod:`tldet.plugins`.
"""

from mmengine.registry import Registry

BACKBONES = Registry("backbone", scope="tldet", locations=["tldet.models.backbones"])
_NECKS = ["tldet.models.necks.fpn", "tldet.models.necks.hybrid_encoder", "tldet.models.necks.simple_pyramid"]
NECKS = Registry("neck", scope="tldet", locations=_NECKS)
HEADS = Registry("head", scope="tldet", locations=["tldet.models.heads"])
_DATASETS = [f"tldet.data.{name}" for name in ("dataset", "folder", "relabeled")]
DATASETS = Registry("dataset", scope="tldet", locations=_DATASETS)
_TRANSFORMS = [f"tldet.data.{name}" for name in ("transforms", "color", "crops", "mixing", "named_transforms")]
TRANSFORMS = Registry("transform", scope="tldet", locations=_TRANSFORMS)
OPTIMIZERS = Registry("optimizer", scope="tldet", locations=["tldet.transfer.param_groups"])
HOOKS = Registry("hook", scope="tldet", locations=["tldet.engine.callbacks"])
INTERFACES = {  # attributes and methods that each component must have
    "backbone": ("channels", "strides", "forward"),
    "neck": ("channels", "strides", "forward"),
    "head": ("forward", "loss", "decode"),
    "transform": ("__call__",),
    "optimizer": ("make",),
    "detection dataset": ("class_names", "__len__", "load"),
}
