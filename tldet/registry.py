"""Where parts of a detector are registered under the name a config calls them by.

A new part is one file that decorates its class with ``@HEADS.register_module()`` (or a sister) and one import in
its folder's ``__init__``.
"""

from mmengine.registry import Registry

BACKBONES = Registry("backbone", scope="tldet", locations=["tldet.models.backbones"])
NECKS = Registry("neck", scope="tldet", locations=["tldet.models.necks", "tldet.models.simple_pyramid"])
HEADS = Registry("head", scope="tldet", locations=["tldet.models.heads"])
DATASETS = Registry("dataset", scope="tldet", locations=["tldet.data.coco", "tldet.data.folder"])
TRANSFORMS = Registry("transform", scope="tldet", locations=["tldet.data.transforms", "tldet.data.crops"])
OPTIMIZERS = Registry("optimizer", scope="tldet", locations=["tldet.transfer.param_groups"])
HOOKS = Registry("hook", scope="tldet", locations=["tldet.engine.hooks"])
