"""``tldet models``: costs compared with published ones, metrics of the configs, and cached weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision

from tldet.cli.main import main
from tldet.config import find, read_config
from tldet.config.files import shipped
from tldet.models.cost import backbone_cost, detector_cost
from tldet.models.zoo import CURATED, backbone_names, find_backbone
from tldet.transfer.cached_weights import is_here
from tldet.workflows.models import backbone_rows, detector_row, models, published_ap


@pytest.mark.parametrize(
    ("name", "classifier"),  # parameters of what is left out: the last norm and the linear layers
    [
        ("resnet18", 513_000),
        ("regnet_y_400mf", 441_000),
        ("densenet121", 1_025_000),
        ("swin_t", 2 * 768 + 769_000),
        ("convnext_tiny", 2 * 768 + 769_000),
        ("vgg16", 123_642_856),
    ],
)
def test_costs_of_backbones_are_those_that_torchvision_publishes(name: str, classifier: int) -> None:
    """All but the classifier, which costs as many multiply-adds as it has parameters."""
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    found = find_backbone(name)
    parameters, cost = backbone_cost({**found.config(found.strides), "out_norm": "none"}, (224, 224))
    assert parameters == meta["num_params"] - classifier
    assert cost == pytest.approx(1e9 * meta["_ops"] - classifier, rel=0.01)


def test_cost_of_faster_rcnn_is_mmdet_s() -> None:
    """207 G on 800 x 1280 (mmdet's model zoo, faster-rcnn_r50_fpn; it counts multiply-adds)."""
    model = read_config("faster_rcnn/faster_rcnn_r50_fpn_1x_coco").data["model"]
    parameters, cost = detector_cost(model, (800, 1280))
    assert cost == pytest.approx(207e9, rel=0.01)
    assert parameters == pytest.approx(41.75e6, rel=0.001)


def test_a_row_of_a_detector() -> None:
    row = detector_row("faster_rcnn/faster_rcnn_r50_fpn_1x_coco")
    assert (row.kind, row.part, row.size) == ("config", "resnet50", (800, 1088))
    assert row.published == "AP 37.4 (mmdet model zoo, faster-rcnn_r50_fpn_1x_coco)"
    recipe = detector_row("recipes/retinanet_lite0")
    assert (recipe.name, recipe.kind, recipe.size, recipe.published) == ("retinanet_lite0", "recipe", (320, 448), "")


@pytest.mark.parametrize("name", [n for n in shipped() if n.endswith("_r50_fpn_1x_coco")])
def test_every_published_figure_is_found_in_its_config(name: str) -> None:
    assert published_ap(find(name)).startswith("AP ")


def test_figures_with_masks_and_over_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text(
        "# Published: box AP 38.2, mask AP 34.7 on COCO\n# val2017 (mmdet model zoo, x.yml): more.\na = 1\n"
    )
    assert published_ap(path) == "AP 38.2, mask AP 34.7 (mmdet model zoo, x.yml)"
    path.write_text("a = 1\n")
    assert published_ap(path) == ""


def test_the_short_list_names_backbones_that_exist() -> None:
    assert set(CURATED) <= set(backbone_names())
    assert len(CURATED) == len(set(CURATED))


def test_names_that_cannot_be_backbones_have_no_row() -> None:
    rows = list(backbone_rows(["resnet18", "beit_base_patch16_224", "efficientvit_m0"]))
    assert [row.name for row in rows] == ["resnet18", "efficientvit_m0"]
    assert rows[0].published == "69.8 % (torchvision)"


def test_weights_are_here_once_their_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    files = {
        "torchvision:ResNet18_Weights.IMAGENET1K_V1": "resnet18-f37072fd.pth",
        "timm:resnet50.a1_in1k": "resnet50_a1_0-14fe96d1.pth",
        "timm:resnet18.a1_in1k": "resnet18.a1_in1k.safetensors",  # placed by hand
        f"https://example.org/w.pth#sha256={'0' * 64}": "w.pth",
    }
    for source, file in files.items():
        assert not is_here(source)
        (tmp_path / "checkpoints" / file).touch()
        assert is_here(source)
    assert not is_here(str(tmp_path / "none.pth"))
    assert is_here(str(tmp_path / "checkpoints" / "w.pth"))
    assert not is_here("package:nothing")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--backbones", "resnet[13][84]", "--json", str(tmp_path / "m.json")]) == 0
    printed = capsys.readouterr().out
    assert "resnet18" in printed
    assert "11.2" in printed
    written = json.loads((tmp_path / "m.json").read_text())
    assert [row["name"] for row in written["models"]] == ["resnet18", "resnet34"]
    assert "multiply-adds" in written["convention"]
    assert main(["models", "--backbones", "resnett*"]) == 2
    assert "no such name" in capsys.readouterr().err


@pytest.mark.slow
def test_everything_at_once() -> None:
    rows = models()
    assert {row.kind for row in rows} == {"recipe", "config", "backbone"}
    assert [row.name for row in rows if row.kind == "backbone"] == list(CURATED)
    assert all(row.multiply_adds > 4e7 and row.parameters > 5e5 for row in rows)
