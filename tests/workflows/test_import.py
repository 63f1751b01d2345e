"""Other people's checkpoints: recognized, mapped, and the same detections afterwards."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import urllib.error
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection

import tldet
from tldet import checkpoint
from tldet.cli.main import main
from tldet.config import build_settings, read_config
from tldet.errors import CheckpointError, ConfigError, TrainingError
from tldet.models.detector import Preprocess, build_detector
from tldet.structures.target import Target
from tldet.transfer.initial_weights import init_from, load_initial, open_initial
from tldet.transfer.interop.adapt import adapted
from tldet.transfer.interop.foreign import Foreign, settings_in
from tldet.transfer.interop.known import KNOWN, KeyLayout, coco_weights, recognize
from tldet.transfer.interop.mmdet_config import MmdetSettings, find_config, mmdet_settings
from tldet.transfer.restore import restore
from tldet.workflows.import_checkpoint import import_checkpoint
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.initial_weights import with_weights

State = dict[str, Tensor]
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "faster_rcnn": detection.fasterrcnn_resnet50_fpn,
    "retinanet": detection.retinanet_resnet50_fpn,
}


WIDE = {"roi_heads.box_predictor.cls_score.weight": 40, "head.classification_head.cls_logits.weight": 3}


def randomised(model: nn.Module) -> nn.Module:
    """Weights that keep activations alive and scores far apart."""
    generator = torch.Generator().manual_seed(5)
    for name, p in sorted([*model.named_parameters(), *model.named_buffers()]):
        if name.endswith("running_var") or (p.ndim == 1 and name.endswith("weight")):
            p.data.uniform_(0.4, 0.6, generator=generator)
        elif p.ndim >= 2:
            wide = WIDE.get(name, 1.6)
            p.data.normal_(0, (wide / p[0].numel()) ** 0.5, generator=generator)
        elif p.is_floating_point():
            p.data.normal_(0, 0.05, generator=generator)
    return model.eval()


def theirs(case: str, **more: Any) -> nn.Module:
    return randomised(BUILDERS[case](weights=None, weights_backbone=None, min_size=192, max_size=256, **more))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (192, 256, 3), dtype=np.uint8)


@pytest.mark.parametrize(("case", "first"), [("faster_rcnn", 1), ("retinanet", 0)])
def test_torchvision_s_detections_are_ours_after_the_import(
    case: str, first: int, tmp_path: Path, image: np.ndarray
) -> None:
    reference = theirs(case)
    torch.save({"model": reference.state_dict(), "epoch": 3}, tmp_path / "theirs.pth")
    assert main(["import", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt")]) == 0
    predictor = tldet.load(tmp_path / "ours.pt", device="cpu", precision="fp32")
    assert (predictor.short, predictor.long) == (800, 1333)
    assert predictor.category_ids == tuple(range(first, 91))
    named = dict(zip(predictor.category_ids, predictor.class_names, strict=True))
    assert (named[1], named[13], named[90], named[12]) == ("person", "stop sign", "toothbrush", "N/A 12")
    assert len(set(predictor.class_names)) == 91 - first

    predictor.short, predictor.long = 192, 256
    found = predictor.predict(image, 0.05)
    x = torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))
    with torch.no_grad():
        (expected,) = reference([x])
    assert len(found) == len(expected["scores"]) >= 50
    torch.testing.assert_close(found.scores, expected["scores"], atol=2e-4, rtol=1e-3)
    ids = torch.tensor(predictor.category_ids)[found.labels]
    same = ids[:, None] == expected["labels"][None]
    near = torch.cdist(found.boxes, expected["boxes"], p=float("inf")) < 0.05
    assert (same & near).any(0).float().mean() >= 0.97, "the rest are ties at the border of the kept ones"

    (model, _), normal = restore(tmp_path / "ours.pt"), torch.randn(1, 3, 64, 96)
    assert [level.shape[1] for level in model.features(normal)] == [256] * 5
    target = Target(torch.tensor([[8.0, 8, 60, 50]]), torch.tensor([2]), torch.tensor([False]))
    assert all(torch.isfinite(v) for v in model.losses(normal, [target]).values())
    assert model.predict_tensor(normal)[0].boxes.shape[1] == 4


def mmdet_state(case: str, classes: int, *, anchors: int = 0, convs: int = 4, depth: int = 18) -> State:
    """Names and shapes of mmdet's RetinaNet and Faster R-CNN on a ResNet."""
    body = torchvision.models.get_model(f"resnet{depth}").state_dict()
    state = {f"backbone.{k}": v.clone() for k, v in body.items() if not k.startswith("fc.")}
    widths = [state[f"backbone.layer{i}.1.bn{2 if depth < 50 else 3}.weight"].shape[0] for i in (1, 2, 3, 4)]
    shapes: dict[str, tuple[int, ...]] = {}
    levels = widths[1:] if case == "retinanet" else widths
    for i, width in enumerate(levels):
        shapes |= {f"neck.lateral_convs.{i}.conv": (256, width, 1, 1), f"neck.fpn_convs.{i}.conv": (256, 256, 3, 3)}
    if case == "retinanet":
        anchors = anchors or 9
        shapes |= {"neck.fpn_convs.3.conv": (256, widths[-1], 3, 3), "neck.fpn_convs.4.conv": (256, 256, 3, 3)}
        towers = [f"bbox_head.{tower}_convs.{i}.conv" for tower in ("cls", "reg") for i in range(convs)]
        shapes |= dict.fromkeys(towers, (256, 256, 3, 3))
        shapes |= {
            "bbox_head.retina_cls": (anchors * classes, 256, 3, 3),
            "bbox_head.retina_reg": (anchors * 4, 256, 3, 3),
        }
    else:
        anchors = anchors or 3
        shapes |= {"rpn_head.rpn_conv": (256, 256, 3, 3)}
        shapes |= {"rpn_head.rpn_cls": (anchors, 256, 1, 1), "rpn_head.rpn_reg": (anchors * 4, 256, 1, 1)}
        head = "roi_head.bbox_head"
        shapes |= {f"{head}.shared_fcs.0": (1024, 256 * 49), f"{head}.shared_fcs.1": (1024, 1024)}
        shapes |= {f"{head}.fc_cls": (classes + 1, 1024), f"{head}.fc_reg": (4 * classes, 1024)}
    generator = torch.Generator().manual_seed(1)
    for name, shape in shapes.items():
        state[f"{name}.weight"] = 0.01 * torch.randn(shape, generator=generator)
        state[f"{name}.bias"] = 0.01 * torch.randn(shape[0], generator=generator)
    return state


CFG_3 = """
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[4.0, 5, 6], bgr_to_rgb=False),
    backbone=dict(type='ResNet', depth=18, style='pytorch'),
    bbox_head=dict(
        type='RetinaHead',
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]),
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=2, scales_per_octave=2, ratios=[0.5, 1.0],
            strides=[8, 16, 32, 64, 128])))
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(640, 360), keep_ratio=True),
    dict(type='PackDetInputs')]
custom = open('/etc/passwd')
"""
CFG_2 = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
data = dict(test=dict(type='CocoDataset', pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(1000, 600), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True),
        dict(type='Normalize', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)])]))
model = dict(type='FasterRCNN', rpn_head=dict(anchor_generator=dict(
    type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])))
"""


def imported(path: Path, content: Any, out: Path) -> dict[str, Any]:
    torch.save(content, path)
    import_checkpoint(path, out=out)
    return checkpoint.load_checkpoint(out)


def test_a_file_of_mmdet_3_with_three_classes_and_all_that_mmengine_adds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mmengine.logging import HistoryBuffer

    caplog.set_level(logging.INFO)
    state = mmdet_state("retinanet", 3, anchors=4, convs=2)
    names = ("cat", "dog", "robot")
    content = {
        "meta": {"epoch": 12, "cfg": CFG_3, "dataset_meta": {"classes": names, "palette": [(1, 2, 3)]}},
        "state_dict": state,
        "ema_state_dict": {f"module.{k}": v for k, v in state.items()},
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer([1.0], [1])}, "resumed_keys": {}},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
        "param_schedulers": [{"last_step": 3}],
    }
    ours = imported(tmp_path / "epoch_12.pth", content, tmp_path / "ours.pt")
    meta, model = ours["meta"], ours["config"]["model"]
    assert meta["class_names"] == list(names)
    assert meta["category_ids"] == [1, 2, 3]
    assert meta["input"] == {"short": 360, "long": 640}
    assert model["preprocess"] == {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "bgr": True}
    assert model["head"]["num_classes"] == 3
    assert model["head"]["stacked_convs"] == 2
    assert model["head"]["settings"]["sizes"][:2] == [[16.0, 22.6274], [32.0, 45.2548]]
    assert model["head"]["settings"]["ratios"] == [0.5, 1.0]
    assert model["head"]["settings"]["weights"] == [10.0, 10.0, 5.0, 5.0]
    assert model["backbone"]["name"] == "resnet18"
    assert list(ours["config"]["data"]) == ["loader"], "COCO's paths are not theirs"
    assert torch.equal(ours["model"]["head.cls_score.weight"], state["bbox_head.retina_cls.weight"])
    assert torch.equal(ours["model"]["neck.p6.weight"], state["neck.fpn_convs.3.conv.weight"])
    assert torch.equal(ours["model"]["backbone.layer4.1.conv2.weight"], state["backbone.layer4.1.conv2.weight"])
    message = caplog.text
    assert "mmdet retinanet, resnet18, 3 classes, 2 convolutions per tower" in message
    assert "1 mmengine.logging.history_buffer.HistoryBuffer" in message
    assert "the averaged weights (EMA) are used" in message
    assert "3 (cat, dog, robot): the file's own names, category ids 1 to 3" in message
    assert "none newly initialized, none unused" in message
    assert tldet.load(tmp_path / "ours.pt").predict(np.zeros((60, 80, 3), np.uint8)).class_names == names


@pytest.mark.parametrize("names", [["person", "dog"], None])
def test_a_file_of_mmdet_2(tmp_path: Path, caplog: pytest.LogCaptureFixture, names: list[str] | None) -> None:
    caplog.set_level(logging.INFO)
    state = mmdet_state("faster_rcnn", 2)
    buffers = {f"ema_{k.replace('.', '_')}": v for k, v in list(state.items())[:5]}
    meta = {"mmdet_version": "2.28.2", "config": CFG_2, **({"CLASSES": names} if names else {})}
    wrapped = {f"module.{k}": v for k, v in state.items()} | {f"module.{k}": v for k, v in buffers.items()}
    ours = imported(tmp_path / "latest.pth", {"meta": meta, "state_dict": wrapped}, tmp_path / "ours.pt")
    assert ours["meta"]["class_names"] == (names or ["class 1", "class 2"])
    assert ours["meta"]["category_ids"] == ([1, 18] if names else [1, 2]), "COCO's ids where the names are COCO's"
    assert ours["meta"]["input"] == {"short": 600, "long": 1000}
    model = ours["config"]["model"]
    assert model["preprocess"] == {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "bgr": True}
    assert model["head"]["rpn"]["sizes"] == [[16.0], [32.0], [64.0], [128.0], [256.0]]
    assert "5 averaged tensors" in caplog.text
    assert "(ema_" in caplog.text


def test_coco_names_and_data_without_metadata_in_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ours = imported(tmp_path / "a.pth", mmdet_state("retinanet", 80), tmp_path / "ours.pt")
    assert ours["meta"]["class_names"][:2] == ["person", "bicycle"]
    assert ours["meta"]["category_ids"][-1] == 90
    assert ours["meta"]["input"] == {"short": 800, "long": 1333}
    assert ours["config"]["data"]["val"]["annotations"].endswith("instances_val2017.json")
    assert "the file contains no config" in caplog.text


def test_torchvision_s_own_classes_are_numbered(tmp_path: Path) -> None:
    ours = imported(tmp_path / "a.pth", theirs("faster_rcnn", num_classes=4).state_dict(), tmp_path / "ours.pt")
    assert ours["meta"]["class_names"] == ["class 1", "class 2", "class 3"]
    assert ours["meta"]["category_ids"] == [1, 2, 3]


def refused(capsys: pytest.CaptureFixture[str], path: Path, out: Path, *more: str) -> str:
    assert main(["import", str(path), "--out", str(out), *more]) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "Traceback" not in err
    assert not out.exists()
    return lines[0]


def test_mismatching_tensors_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "out.pt"
    state = mmdet_state("retinanet", 3)
    del state["neck.fpn_convs.1.conv.bias"]
    state["backbone.layer1.0.conv2_offset.weight"] = torch.zeros(2)
    state["neck.fpn_convs.2.conv.bias"] = torch.zeros(7)
    torch.save(state, path)
    line = refused(capsys, path, out)
    assert "does not fit mmdet's retinanet" in line
    assert "1 missing (neck.output.1.bias)" in line
    assert "1 unexpected (backbone.layer1.0.conv2_offset.weight)" in line
    assert "1 of another shape (neck.output.2.bias [7] instead of [256])" in line
    line = refused(capsys, path, out, "--model", "faster_rcnn_r50")
    assert "missing (" in line
    assert "unexpected (" in line
    assert "--model 'yolo': unknown; known: faster_rcnn," in refused(capsys, path, out, "--model", "yolo")
    assert "mmdet has no such model" in refused(capsys, path, out, "--model", "faster_rcnn_v2")


def test_unknown_layouts_and_broken_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "out.pt"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    line = refused(capsys, path, out)
    assert "its 122 tensors (conv1.weight, bn1.weight, ..., fc.bias) match no model that can be imported" in line
    assert "unexpected (" in refused(capsys, path, out, "--model", "retinanet")
    torch.save({"state_dict": {"a": 1}, "meta": {}}, path)
    assert refused(capsys, path, out).endswith("contains no tensors")
    torch.save({"state_dict": {"a": nn.Linear(2, 2)}}, path)
    assert "contains no tensors; objects of other code were skipped (" in refused(capsys, path, out)
    torch.save(nn.Linear(2, 2), path)
    assert "a pickled torch.nn.modules.linear.Linear" in refused(capsys, path, out)
    path.write_bytes(path.read_bytes()[:300])
    assert "broken or cut off" in refused(capsys, path, out)
    assert "no such file" in refused(capsys, tmp_path / "none.pth", out)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_hostile_file_is_imported_without_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, marker = tmp_path / "a.pth", tmp_path / "ran"
    torch.save({"state_dict": mmdet_state("retinanet", 2), "meta": {"x": Evil(marker)}}, path)
    assert main(["import", str(path), "--out", str(tmp_path / "out.pt")]) == 0
    assert f"1 object of other Python classes ignored: 1 {os.system.__module__}.system" in capsys.readouterr().err
    assert not marker.exists()


@pytest.mark.parametrize("case", [k.case for k in KNOWN if k.dialect == "mmdet"])
def test_mmdet_models_are_recognized_by_their_keys(shared: Path, case: str) -> None:
    states = json.loads((shared / "parity" / "mmdet" / f"{case}.json").read_text())["state"]
    layout = recognize({name: torch.empty(shape) for name, shape in states.items()})
    one_stage = "rcnn" not in case
    assert layout == KeyLayout("mmdet", case, "resnet50", 80, 4 if one_stage else 0)


@pytest.mark.parametrize("known", [k for k in KNOWN if k.weights], ids=lambda k: k.case)
def test_torchvision_models_are_recognized_by_their_keys_and_have_weights(known: Any) -> None:
    member = torchvision.models.get_weight(f"{known.weights}.COCO_V1")
    assert member.meta["_metrics"]["COCO-val2017"]["box_map"] == known.box_ap
    name = known.weights.removesuffix("_Weights").lower()
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    layout = recognize(model.state_dict())
    assert (layout.dialect, layout.case, layout.backbone) == ("torchvision", known.case, "resnet50")
    assert layout.classes == (90 if "rcnn" in known.case else 91)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2", "mobilenet_v2"]
)
def test_backbones_are_recognized_by_their_blocks(name: str) -> None:
    with torch.device("meta"):
        body = torchvision.models.get_model(name).state_dict()
    layout = recognize({f"backbone.{key}": value for key, value in body.items()})
    assert layout.backbone == (None if name == "mobilenet_v2" else name)
    assert layout.case is None


def test_a_keypoint_model_is_none_of_ours() -> None:
    with torch.device("meta"):
        model = detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    assert recognize(model.state_dict()).case is None


@pytest.mark.parametrize("case", ["faster_rcnn", "retinanet"])
def test_older_names_of_torchvision_and_the_norms_of_its_published_weights(case: str, tmp_path: Path) -> None:
    """Torchvision itself reads such a file as the model that it was, but for the norms' eps, which is 0 then."""
    reference = theirs(case)
    new = reference.state_dict()
    tower = re.compile(r"(_head\.conv)\.(\d+)\.0\.")
    old = {
        tower.sub(lambda m: f"{m[1]}.{2 * int(m[2])}.", key).replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if "fpn" not in key
        else re.sub(r"_blocks\.(\d)\.0\.", r"_blocks.\1.", key): value
        for key, value in new.items()
    }
    assert len(old.keys() - new.keys()) >= 14
    reference.load_state_dict(old)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    imported(tmp_path / "a.pth", old, tmp_path / "ours.pt")
    ours, _ = restore(tmp_path / "ours.pt")
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        levels = zip(ours.features(x), reference.backbone(x).values(), strict=True)
        assert all(torch.allclose(mine, other, atol=1e-4, rtol=1e-4) for mine, other in levels)
    variance = ours.state_dict()["backbone.layer4.0.bn1.running_var"]
    torch.testing.assert_close(variance, new["backbone.body.layer4.0.bn1.running_var"] - 1e-5, atol=1e-7, rtol=0)


def test_settings_of_a_config_text_are_used() -> None:
    layout = KeyLayout("mmdet", "atss", "resnet50", 5, 4)
    section = {
        "backbone": {"name": "resnet50"},
        "neck": {"extra": "p6p7_c5"},
        "head": {"type": "ATSSHead", "num_classes": 80, "stacked_convs": 4, "settings": {"octave_base_scale": 8.0}},
    }
    anchors = {"octave_base_scale": 4, "scales_per_octave": 1, "ratios": [1.0], "strides": [8, 16]}
    settings = MmdetSettings(strided_conv="1x1", anchors=anchors)
    p6 = {"neck.p6.weight": torch.empty(256, 256, 3, 3)}
    model = adapted(section, layout, p6, settings)
    assert model["head"]["settings"]["octave_base_scale"] == 4.0
    assert model["backbone"]["strided_conv"] == "1x1"
    assert model["neck"]["extra"] == "p6p7_p5"
    assert section["head"]["num_classes"] == 80, "the shipped section stays as it is"
    with pytest.raises(CheckpointError, match="ATSSHead has one"):
        adapted(section, layout, {}, MmdetSettings(anchors={**anchors, "ratios": [0.5, 1.0]}))
    with pytest.raises(CheckpointError, match="are not supported by ATSSHead"):
        adapted(section, layout, {}, MmdetSettings(anchors={"type": "LegacyAnchorGenerator"}))


@pytest.mark.parametrize(
    "text", ["", "((((", "x = 1", "model = 3\ntest_pipeline = [None, 4, [[[[[[[]]]]]]]]", "-" * 9999]
)
def test_an_invalid_config_text_is_ignored(text: str) -> None:
    found = mmdet_settings(find_config({"meta": {"cfg": text}}))
    assert (found.preprocess, found.input, found.anchors) == (None, None, None)


def test_numbered_classes_match_no_name(tmp_path: Path) -> None:
    torch.save(mmdet_state("retinanet", 2), tmp_path / "a.pth")
    start = open_initial(tmp_path / "a.pth")
    assert start is not None
    assert start.class_names == (None, None), "'class 1' of somebody's data is another"


CAFFE = """
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(type='ResNet', depth=50, style='caffe'))
"""
BLUE_FIRST = {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "bgr": True}


@pytest.mark.parametrize("depth", [50, 18])
def test_initial_weights_bring_their_preprocessing(
    depth: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    path, state = tmp_path / "mm.pth", mmdet_state("retinanet", 2, depth=depth)
    torch.save({"meta": {"CLASSES": ("a", "b"), "cfg": CAFFE}, "state_dict": state}, path)
    config = read_config("retinanet_r50").data
    config["model"]["backbone"]["name"] = f"resnet{depth}"
    with monkeypatch.context() as patch:
        patch.setattr(
            "tldet.transfer.safe_unpickle.archives.Archive.tensors", None
        )  # no tensor is read to recognize it
        config = with_weights(config, str(path), "retinanet_r50")
    assert config["model"]["preprocess"] == BLUE_FIRST
    assert "model.preprocess {" in caplog.text
    stride = config["model"]["backbone"].get("strided_conv")
    assert stride == ("1x1" if depth == 50 else None), "mmdet's basic blocks have no style"

    model = build_detector(read_config("retinanet_r50").data["model"], ["b"])
    with pytest.raises(
        CheckpointError, match=r"set model\.preprocess to that of its training, .*103.53.*now .*123.675"
    ) as raised:
        load_initial(model, str(path))
    assert "\n" not in str(raised.value)
    if depth == 50:
        model.preprocess = build_settings(Preprocess, BLUE_FIRST)
        with pytest.raises(CheckpointError, match=r"strided_conv to that of its training, 1x1 \(now 3x3\)"):
            load_initial(model, str(path))


def test_tldet_checkpoints_bring_their_preprocessing(tmp_path: Path) -> None:
    section = read_config("retinanet_lite0").data["model"]
    theirs = {**section, "preprocess": BLUE_FIRST}
    meta = {"class_names": ["a"], "category_ids": [1], "input": {"short": 64, "long": 64}}
    state = build_detector(section).state_dict()
    checkpoint.save(tmp_path / "a.pt", {"config": {"model": theirs}, "meta": meta, "model": state, "ema": None})
    for start in (init_from, load_initial):
        with pytest.raises(CheckpointError, match=r"a\.pt: set model\.preprocess to that of its training"):
            start(build_detector(section), str(tmp_path / "a.pt"))
    config = read_config("retinanet_lite0").data
    config = with_weights(config, str(tmp_path / "a.pt"), "retinanet_lite0")
    assert config["model"]["preprocess"] == BLUE_FIRST
    report = load_initial(build_detector(config["model"], ["a"]), str(tmp_path / "a.pt"))
    assert report.new == []

    checkpoint.save_weights(tmp_path / "a.safetensors", state, {})
    with pytest.raises(CheckpointError, match="contains the weights of a detector without its classes"):
        with_weights(config, str(tmp_path / "a.safetensors"), "retinanet_lite0")
    body = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    checkpoint.save_weights(tmp_path / "b.safetensors", {**body, "head.weight": torch.zeros(2)}, {})
    assert open_initial(tmp_path / "b.safetensors") is None, "a classifier has a head too"
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        open_initial(tmp_path / "b.safetensors")
    checkpoint.save(tmp_path / "c.pt", {"meta": meta})
    with pytest.raises(CheckpointError, match=r"c\.pt: is not a checkpoint of a detector \(KeyError: 'config'\)"):
        open_initial(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "config",
    [
        {"test_pipeline": [{"type": "Resize", "scale": (float("inf"), 5.0), "keep_ratio": True}]},
        {"model": {"data_preprocessor": {"mean": (10**400, 1, 1), "std": (1, 1, 1)}}},
        {"model": {"bbox_head": {"anchor_generator": {"base_sizes": [8], "scales": [4], "ratios": [1.0]}}}},
        {
            "model": {
                "bbox_head": {"anchor_generator": {"base_sizes": [8], "scales": [4], "ratios": [1.0], "strides": 3}}
            }
        },
        "deep",
    ],
)
def test_odd_values_in_a_file_s_config_are_one_line(
    config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if config == "deep":
        style: Any = ()
        for _ in range(50_000):
            style = (style,)
        config = {"model": {"backbone": {"style": style}}}
    state = {name: torch.zeros(1) for name in ("bbox_head.atss_cls.bias", "bbox_head.atss_reg.bias")}
    if config.get("model", {}).get("backbone"):
        foreign = Foreign(tmp_path / "a", {"meta": {"cfg": config}}, state, recognize(state), [], [], Counter())
        with pytest.raises(CheckpointError, match="the config inside it cannot be read"):
            settings_in(foreign.content, KNOWN[3], foreign.layout, foreign.path)
        return
    torch.save({"meta": {"cfg": config}, "state_dict": state}, tmp_path / "a.pth")
    line = refused(capsys, tmp_path / "a.pth", tmp_path / "out.pt")
    assert "config inside it cannot be read" in line or "are not supported by ATSSHead" in line


def renamed(digits: Path, folder: Path, names: list[str]) -> Path:
    """The digits' training images with other classes."""
    truth = json.loads((digits / "train" / "_annotations.coco.json").read_text())
    truth["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    for number, annotation in enumerate(truth["annotations"]):
        annotation["category_id"] = 1 + number % len(names)
    (folder / "mine.json").write_text(json.dumps(truth))
    return folder / "mine.json"


def published(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A file in torch's cache that stands for torchvision's published weights, hash in its name included."""
    known = next(k for k in KNOWN if k.dialect == "torchvision" and k.case == case)
    state = theirs(case).state_dict()
    (folder / "checkpoints").mkdir()
    torch.save(state, folder / "whole.pth")
    digest = hashlib.sha256((folder / "whole.pth").read_bytes()).hexdigest()[:8]
    (folder / "whole.pth").rename(folder / "checkpoints" / f"{case}_coco-{digest}.pth")
    member = torchvision.models.get_weight(f"{known.weights}.COCO_V1")
    monkeypatch.setattr(member.value, "url", f"http://127.0.0.1:9/{case}_coco-{digest}.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    return dict(state)


STILL = ["optimizer.lr=1e-12", "schedule.warmup_steps=0", "data.loader.batch_size=1", "training.precision=fp32"]
SMALL = ["data.train.transforms.0.short=64", "data.val.transforms.0.short=64"]


def quick(digits: Path, truth: Path, out: Path, **more: Any) -> dict[str, Any]:
    given = {"train": truth, "val": truth, "images": digits / "train", "steps": 1}
    finetune(out=out, cfg_options=STILL + SMALL, **given, **more, report=False)
    return checkpoint.load_checkpoint(out / "best.pt")


@pytest.mark.parametrize(
    ("case", "model"),
    [("retinanet", "retinanet_r50"), pytest.param("faster_rcnn", "faster_rcnn_r50", marks=pytest.mark.slow)],
)
def test_finetuning_from_the_published_detector(
    case: str,
    model: str,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    state = published(case, tmp_path, monkeypatch)
    truth = renamed(digits, tmp_path, ["dog", "unicorn", "person"])
    ours = quick(digits, truth, tmp_path / "out", model=model, weights="coco")
    known = next(k for k in KNOWN if k.config == f"recipes/{model}")
    assert ours["meta"]["weights_source"] == f"torchvision:{known.weights}.COCO_V1"
    weight, shifts = (
        next(value for key, value in ours["model"].items() if key.endswith(end))
        for end in ("cls_score.weight", "bbox_pred.bias")
    )
    if case == "faster_rcnn":
        old = state["roi_heads.box_predictor.cls_score.weight"]
        taken = [(0, 18), (2, 1), (3, 0)]  # dog, person, background
        assert torch.allclose(shifts[8:], state["roi_heads.box_predictor.bbox_pred.bias"][4:8])
    else:
        old = state["head.classification_head.cls_logits.weight"]
        taken = [(3 * a + row, 91 * a + number) for a in range(9) for row, number in ((0, 18), (2, 1))]
    assert all(torch.allclose(weight[here], old[there], atol=1e-6) for here, there in taken)
    assert not torch.allclose(weight[1], old[1], atol=1e-3)
    key = "backbone.layer4.2.conv3.weight"
    assert torch.allclose(ours["model"][key], state[key.replace("backbone.", "backbone.body.")], atol=1e-6)
    assert "2 of 3 classes matched (dog, person)" in caplog.text
    assert "none newly initialized" in caplog.text
    assert "ResNet50_Weights" not in caplog.text, "the backbone's own weights are not fetched"


def test_finetuning_from_files(digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    truth = renamed(digits, tmp_path, ["cat", "bird"])
    state = mmdet_state("retinanet", 3)
    state["neck.fpn_convs.3.conv.weight"] = torch.zeros(256, 256, 3, 3)  # the recipe's P6 comes from P5
    torch.save({"meta": {"CLASSES": ("bird", "cow", "cat")}, "state_dict": state}, tmp_path / "mm.pth")
    small = {"model": "retinanet_r50", "backbone": "resnet18"}
    ours = quick(digits, truth, tmp_path / "a", **small, weights=tmp_path / "mm.pth")
    assert torch.allclose(ours["model"]["head.cls_score.bias"][:2], state["bbox_head.retina_cls.bias"][[2, 0]])
    assert "2 of 2 classes matched" in caplog.text

    again = quick(digits, truth, tmp_path / "b", **small, weights=tmp_path / "a" / "best.pt")
    for key in ("head.cls_score.weight", "neck.output.0.weight"):
        assert torch.allclose(again["model"][key], ours["model"][key], atol=1e-6)

    body = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    torch.save(body, tmp_path / "r18.pth")
    third = quick(digits, truth, tmp_path / "c", **small, weights=tmp_path / "r18.pth")
    assert third["meta"]["weights_source"] == str(tmp_path / "r18.pth")
    assert torch.allclose(third["model"]["backbone.conv1.weight"], body["conv1.weight"], atol=1e-6)
    assert "backbone weights; neck and head are newly initialized" in caplog.text


def test_invalid_initial_weights(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    monkeypatch.setattr("urllib.request.OpenerDirector.open", offline)
    with pytest.raises(
        CheckpointError, match=r"there are no published COCO weights for retinanet_lite0; .*faster_rcnn_r50 \("
    ):
        finetune(digits, out=tmp_path / "a", model="retinanet_lite0", weights="coco")
    with pytest.raises(
        CheckpointError, match=r"cannot download .*258fb6c6\.pth \(no network\); place the file at .*empty"
    ):
        finetune(digits, out=tmp_path / "b", model="faster_rcnn_r50", weights="coco", steps=1)
    with pytest.raises(TrainingError, match="--weights coco and --scratch cannot be combined"):
        finetune(digits, out=tmp_path / "c", model="faster_rcnn_r50", weights="coco", scratch=True)
    with pytest.raises(TrainingError, match="--weights coco and --backbone cannot be combined"):
        finetune(digits, out=tmp_path / "d", model="faster_rcnn_r50", weights="coco", backbone="resnet18")
    with pytest.raises(CheckpointError, match="no such file"):
        finetune(digits, out=tmp_path / "e", weights=tmp_path / "none.pth")
    with pytest.raises(ConfigError, match=r"model\.weights\.sorce: unknown key; did you mean 'source'"):
        finetune(digits, out=tmp_path / "f", model="retinanet_lite0", steps=1, cfg_options=["model.weights.sorce=x"])
    assert coco_weights("recipes/retinanet_r50", ["recipes/retinanet_r50"]).endswith(
        "RetinaNet_ResNet50_FPN_Weights.COCO_V1"
    )
