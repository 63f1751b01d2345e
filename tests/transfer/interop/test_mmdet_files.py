"""Configs of MMDetection are recognized, and those of tldet are not taken for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tldet.cli.main import main
from tldet.config.files import config_root
from tldet.transfer.interop.mmdet_files import advice

BASES = """_base_ = ['../_base_/models/{model}.py', '../_base_/datasets/coco_detection.py',
          '../_base_/schedules/schedule_1x.py', '../_base_/default_runtime.py']
"""
NEW_STYLE = """from mmengine.config import read_base
with read_base():
    from .._base_.models.mask_rcnn_r50_fpn import *
    from .._base_.default_runtime import *
"""
WHOLE = """default_scope = 'mmdet'
model = dict(type='{type}', backbone=dict(type='ResNet', depth={depth}, init_cfg=dict(type='Pretrained')),
             {heads})
train_dataloader = dict(batch_size=2)
"""


@pytest.mark.parametrize(
    ("name", "text", "recipe"),
    [
        ("faster-rcnn_r50_fpn_1x_coco.py", BASES.format(model="faster-rcnn_r50_fpn"), "faster_rcnn_r50 --data"),
        ("mine.py", BASES.format(model="cascade-mask-rcnn_r50_fpn"), "cascade_mask_rcnn_r50 --data"),
        ("retinanet_r50_fpn_1x_coco.py", BASES.format(model="retinanet_r50_fpn"), "retinanet_r50 --data"),
        ("mine.py", NEW_STYLE, "mask_rcnn_r50 --data"),
        ("mine.py", WHOLE.format(type="GFL", depth=50, heads="bbox_head=dict(type='GFLHead')"), "gfl_r50 --data"),
        (
            "mine.py",
            WHOLE.format(type="FasterRCNN", depth=101, heads="rpn_head=dict(), roi_head=dict()"),
            "faster_rcnn_r50 --backbone resnet101 --data",
        ),
        (
            "mine.py",
            WHOLE.format(type="CascadeRCNN", depth=50, heads="roi_head=dict(mask_head=dict())"),
            "cascade_mask_rcnn_r50 --data",
        ),
        ("mine.py", WHOLE.format(type="VFNet", depth=50, heads=""), "gfl_r50 --data"),
        ("mine.py", WHOLE.format(type="NoSuchNet", depth=50, heads="roi_head=dict()"), "faster_rcnn_r50 --data"),
        ("rtmdet_tiny_8xb32-300e_coco.py", WHOLE.format(type="RTMDet", depth=50, heads=""), "gfl_lite0 --data"),
        (
            "atss_r101_fpn_1x_coco.py",
            "_base_ = './atss_r50_fpn_1x_coco.py'\nmodel = dict(backbone=dict(depth=101, init_cfg=dict(\n"
            "    type='Pretrained', checkpoint='torchvision://resnet101')))\n",
            "atss_r50 --backbone resnet101 --data",
        ),
        (  # 2.x
            "mine.py",
            "model = dict(type='FCOS', bbox_head=dict(type='FCOSHead'))\ndata = dict(samples_per_gpu=2)\n"
            "optimizer = dict(type='SGD', lr=0.02)\nlr_config = dict(policy='step')\ntotal_epochs = 12\n",
            "fcos_r50 --data",
        ),
        ("mine.py", "model = dict(type='ATSS')\ndata = dict(a=[x for x in range(3)])\n", "atss_r50 --data"),
    ],
)
def test_the_nearest_recipe_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, recipe: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    for arguments in (["train", str(path)], ["finetune", "--data", ".", "--out", str(tmp_path), "--model", str(path)]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert f"{path}: is a config of MMDetection" in err
        assert f"--model {recipe}" in err
        assert err.count("\n") == 1


def test_bases_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    (tmp_path / "a.py").write_text("_base_ = ['a.py', 'b.py', 'loop.py']\n")
    (tmp_path / "b.py").write_text("_base_ = ['a.py']\nmodel = dict(type='RetinaNet', bbox_head=dict())\n")
    assert "(RetinaNet)" in advice(tmp_path / "a.py")


def test_the_configs_of_tldet_are_its_own() -> None:
    found = [path for path in config_root().rglob("*.py") if advice(path)]
    assert found == []


def test_a_wrong_config_of_tldet_keeps_its_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    base = (config_root() / "recipes" / "retinanet_lite0.py").as_posix()
    path.write_text(f"_base_ = {base!r}\nmodel = dict(head=dict(num_clases=3))\n")
    assert main(["train", str(path)]) == 2
    assert "model.head.num_clases: unknown key; did you mean 'num_classes'?" in capsys.readouterr().err
