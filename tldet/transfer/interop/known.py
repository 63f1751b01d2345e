"""Models of mmdet, torchvision and the D-FINE family that correspond to shipped configs.

They are found by name (``--model``), by the keys of a state dict (:func:`recognize`), and by recipe for its published
COCO weights (:func:`coco_weights`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tldet.errors import CheckpointError, ConfigError
from tldet.text import counted
from tldet.transfer.interop.dialects.dfine import dfine_backbone, dfine_case, dfine_classes

Dialect = Literal["mmdet", "torchvision", "dfine"]


@dataclass(frozen=True)
class Known:
    """Model of a toolkit.

    Attributes:
        dialect: toolkit of the tensor names.
        case: name of the model, the same for all toolkits.
        config: shipped config with the same model.
        weights: name of torchvision's weights, of which ``COCO_V1`` is used.
        box_ap: box AP of the published weights on COCO val2017 in percent, as stated by their publisher.
        published: source of published weights other than torchvision's.
    """

    dialect: Dialect
    case: str
    config: str
    weights: str | None = None
    box_ap: float | None = None
    published: str | None = None

    @property
    def source(self) -> str | None:
        """Source of the published COCO weights, see :mod:`tldet.transfer.sources`."""
        return f"torchvision:{self.weights}.COCO_V1" if self.weights else self.published

    @property
    def names(self) -> tuple[str, ...]:
        """Accepted values of ``--model``."""
        return (self.case, self.config, self.config.rpartition("/")[2])


def _dfine(case: str, box_ap: float, source: str) -> Known:
    return Known("dfine", case, f"recipes/{case}", box_ap=box_ap, published=source)


KNOWN = (
    Known("mmdet", "faster_rcnn", "faster_rcnn/faster_rcnn_r50_fpn_1x_coco"),
    Known("mmdet", "retinanet", "retinanet/retinanet_r50_fpn_1x_coco"),
    Known("mmdet", "fcos", "fcos/fcos_r50_caffe_fpn_gn_head_center_normbbox_centeronreg_giou_1x_coco"),
    Known("mmdet", "atss", "atss/atss_r50_fpn_1x_coco"),
    Known("mmdet", "gfl", "gfl/gfl_r50_fpn_1x_coco"),
    Known("mmdet", "cascade_rcnn", "cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco"),
    Known("mmdet", "mask_rcnn", "mask_rcnn/mask_rcnn_r50_fpn_1x_coco"),
    Known("mmdet", "cascade_mask_rcnn", "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_coco"),
    Known("torchvision", "faster_rcnn", "recipes/faster_rcnn_r50", "FasterRCNN_ResNet50_FPN_Weights", 37.0),
    Known("torchvision", "faster_rcnn_v2", "recipes/faster_rcnn_r50_v2", "FasterRCNN_ResNet50_FPN_V2_Weights", 46.7),
    Known("torchvision", "retinanet", "recipes/retinanet_r50", "RetinaNet_ResNet50_FPN_Weights", 36.4),
    Known("torchvision", "retinanet_v2", "recipes/retinanet_r50_v2", "RetinaNet_ResNet50_FPN_V2_Weights", 41.5),
    Known("torchvision", "fcos", "recipes/fcos_r50", "FCOS_ResNet50_FPN_Weights", 39.2),
    Known("torchvision", "mask_rcnn", "recipes/mask_rcnn_r50", "MaskRCNN_ResNet50_FPN_Weights", 37.9),
    Known("torchvision", "mask_rcnn_v2", "recipes/mask_rcnn_r50_v2", "MaskRCNN_ResNet50_FPN_V2_Weights", 47.4),
    _dfine("dfine_n", 42.8, "dfine:dfine_n_coco"),
    _dfine("dfine_s", 48.5, "dfine:dfine_s_coco"),
    _dfine("dfine_m", 52.3, "dfine:dfine_m_coco"),
    _dfine("dfine_l", 54.0, "dfine:dfine_l_coco"),
    _dfine("dfine_x", 55.8, "dfine:dfine_x_coco"),
    _dfine("rtdetrv2_r18", 47.9, "hf:PekingU/rtdetr_v2_r18vd"),
    _dfine("rtdetrv2_r34", 49.9, "hf:PekingU/rtdetr_v2_r34vd"),
    _dfine("rtdetrv2_r50_m", 51.9, "hf:PekingU/rtdetr_v2_r50vd_m"),
    _dfine("rtdetrv2_r50", 53.4, "hf:PekingU/rtdetr_v2_r50vd"),
    _dfine("rtdetrv2_r101", 54.3, "hf:PekingU/rtdetr_v2_r101vd"),
)
# Names of classifier and box layer in mmdet's one-stage heads.
MMDET_HEADS = {
    "retinanet": ("bbox_head.retina_cls", "bbox_head.retina_reg"),
    "atss": ("bbox_head.atss_cls", "bbox_head.atss_reg"),
    "gfl": ("bbox_head.gfl_cls", "bbox_head.gfl_reg"),
    "fcos": ("bbox_head.conv_cls", "bbox_head.conv_reg"),
}
# torchvision's names of networks by: blocks per stage; output and input channels of the first conv2; has conv3.
RESNETS: dict[tuple[tuple[int, ...], tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), (64, 64), False): "resnet18",
    ((3, 4, 6, 3), (64, 64), False): "resnet34",
    ((3, 4, 6, 3), (64, 64), True): "resnet50",
    ((3, 4, 23, 3), (64, 64), True): "resnet101",
    ((3, 8, 36, 3), (64, 64), True): "resnet152",
    ((3, 4, 6, 3), (128, 4), True): "resnext50_32x4d",
    ((3, 4, 23, 3), (256, 8), True): "resnext101_32x8d",
    ((3, 4, 23, 3), (256, 4), True): "resnext101_64x4d",
    ((3, 4, 6, 3), (128, 128), True): "wide_resnet50_2",
    ((3, 4, 23, 3), (128, 128), True): "wide_resnet101_2",
}


@dataclass(frozen=True)
class KeyLayout:
    """Layout of a state dict, recognized by names and shapes; unknown values are None or 0.

    Attributes:
        dialect: toolkit of the tensor names.
        case: model in :data:`KNOWN`.
        backbone: torchvision's name of the backbone.
        classes: number of outputs of the classifier, including the background row of torchvision's one-stage models.
        convs: convolutions in each tower of a one-stage head; 0 for two-stage heads.
    """

    dialect: Dialect
    case: str | None
    backbone: str | None
    classes: int
    convs: int

    @property
    def bottlenecks(self) -> bool:
        """True if the backbone consists of bottlenecks, whose stride depends on mmdet's ``style``."""
        return any(deep and name == self.backbone for (_, _, deep), name in RESNETS.items())

    def __str__(self) -> str:
        convs = f", {counted(self.convs, 'convolution')} per tower" if self.convs else ""
        case, backbone = self.case or "detector of unknown type", self.backbone or "unknown backbone"
        return f"{self.dialect} {case}, {backbone}, {counted(self.classes, 'class', 'classes')}{convs}"


def recognize(state: Mapping[str, Tensor]) -> KeyLayout:
    """Recognize the layout of a state dict of mmdet, torchvision or the D-FINE family."""
    if _has(state, "encoder.fpn_blocks."):
        case = dfine_case(state)
        return KeyLayout("dfine", case, dfine_backbone(case), dfine_classes(state), 0)
    torchvision = _has(state, "backbone.body.") or _has(state, "roi_heads.")
    dialect: Dialect = "torchvision" if torchvision else "mmdet"
    case = _torchvision_case(state) if torchvision else _mmdet_case(state)
    backbone = _backbone(state, "backbone.body." if torchvision else "backbone.")
    classes = 0 if case is None else _classes(state, dialect, case)
    return KeyLayout(dialect, case, backbone, classes, _convs(state))


def _has(state: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state)


def _torchvision_case(state: Mapping[str, Tensor]) -> str | None:
    if _has(state, "roi_heads.keypoint_predictor."):
        return None
    if _has(state, "roi_heads.box_predictor."):
        second = "_v2" if _has(state, "roi_heads.box_head.0.") else ""
        return ("mask_rcnn" if _has(state, "roi_heads.mask_predictor.") else "faster_rcnn") + second
    if _has(state, "head.regression_head.bbox_ctrness."):
        return "fcos"
    if _has(state, "head.classification_head.cls_logits."):
        return "retinanet" + ("_v2" if _has(state, "head.classification_head.conv.0.1.") else "")
    return None


def _mmdet_case(state: Mapping[str, Tensor]) -> str | None:
    if _has(state, "roi_head.bbox_head."):
        stages = "cascade_" if _has(state, "roi_head.bbox_head.0.") else ""
        return stages + ("mask_rcnn" if _has(state, "roi_head.mask_head.") else "rcnn" if stages else "faster_rcnn")
    return next((case for case, (classifier, _) in MMDET_HEADS.items() if f"{classifier}.bias" in state), None)


def _backbone(state: Mapping[str, Tensor], prefix: str) -> str | None:
    first = state.get(f"{prefix}layer1.0.conv2.weight")
    if first is None or first.ndim != 4:
        return None
    at = prefix.count(".") + 1
    stages = [{key.split(".")[at] for key in state if key.startswith(f"{prefix}layer{i}.")} for i in (1, 2, 3, 4)]
    blocks = tuple(len(stage) for stage in stages)
    return RESNETS.get((blocks, tuple(first.shape[:2]), f"{prefix}layer1.0.conv3.weight" in state))


def _classes(state: Mapping[str, Tensor], dialect: Dialect, case: str) -> int:
    """Return the number of classifier rows per anchor, without the background of two-stage models."""
    if "rcnn" in case:
        stage = "0." if case.startswith("cascade") else ""
        name = f"roi_head.bbox_head.{stage}fc_cls" if dialect == "mmdet" else "roi_heads.box_predictor.cls_score"
        return max(_rows(state, name) - 1, 0)
    classifier, boxes = MMDET_HEADS.get(case, ("", ""))
    if dialect == "torchvision":
        classifier, boxes = "head.classification_head.cls_logits", "head.regression_head.bbox_reg"
    anchors = 1 if case == "gfl" else _rows(state, boxes) // 4  # the box layer of gfl predicts distributions
    return _rows(state, classifier) // anchors if anchors else 0


def _rows(state: Mapping[str, Tensor], layer: str) -> int:
    bias = state.get(f"{layer}.bias")
    return 0 if bias is None or bias.ndim != 1 else len(bias)


def _convs(state: Mapping[str, Tensor]) -> int:
    """Count the 3x3 convolutions of the classification tower."""
    towers = ("bbox_head.cls_convs.", "head.classification_head.conv.")
    return sum(1 for key, value in state.items() if key.startswith(towers) and value.ndim == 4)


def layout_named(name: str, layout: KeyLayout) -> Known:
    """Return the model of ``--model NAME`` for a file of this layout.

    Raises:
        ConfigError: there is no such model, or it does not exist in the toolkit of the file.
    """
    cases = {known.case for known in KNOWN if name in known.names}
    if not cases:
        raise ConfigError(f"--model {name!r}: unknown; known: {', '.join(dict.fromkeys(k.case for k in KNOWN))}")
    found = [known for known in KNOWN if known.case in cases and known.dialect == layout.dialect]
    if not found:
        raise ConfigError(f"--model {name!r}: {layout.dialect} has no such model; the file looks like {layout}")
    return found[0]


def known_layout(layout: KeyLayout) -> Known | None:
    """Return the model of a recognized layout; None if it is unknown."""
    return next((known for known in KNOWN if (known.dialect, known.case) == (layout.dialect, layout.case)), None)


def published_weights(config: str) -> str | None:
    """Return the source of the published COCO weights of a shipped config; None if there are none."""
    return next((known.source for known in KNOWN if known.config == config and known.source), None)


def coco_weights(recipe: str, shipped: Iterable[str]) -> str:
    """Return the source of the published COCO weights for a recipe, such as ``torchvision:NAME``.

    Raises:
        CheckpointError: there are none; the message lists the recipes with weights.
    """
    name, configs = recipe.removeprefix("recipes/"), set(shipped)
    source = published_weights(f"recipes/{name}")
    if source and f"recipes/{name}" in configs:
        return source
    published = [known for known in KNOWN if known.source and known.config in configs]
    others = ", ".join(f"{known.config.removeprefix('recipes/')} (box AP {known.box_ap})" for known in published)
    raise CheckpointError(f"--weights coco: there are no published COCO weights for {name}; available for {others}")
