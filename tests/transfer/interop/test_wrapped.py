"""State dicts as other training tools save them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn, fcos_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from tldet import checkpoint
from tldet.cli.main import main
from tldet.coco.class_files import read_names
from tldet.errors import CheckpointError, ConfigError
from tldet.transfer.initial_weights import open_initial
from tldet.transfer.interop.classes import BACKGROUND_NAME
from tldet.transfer.interop.foreign import layout_in, read_foreign
from tldet.transfer.interop.wrapped import detector_prefix
from tldet.transfer.safe_unpickle.archives import read_archive
from tldet.transfer.weights import load_backbone_weights
from tldet.workflows.import_checkpoint import import_checkpoint

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    return fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A Faster R-CNN of a fourth of the size."""
    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return FasterRCNN(body, box_head=TwoMLPHead(256 * 7**2, 64), box_predictor=FastRCNNPredictor(64, 4))


def under(prefix: str) -> Callable[[State], Any]:
    return lambda state: {f"{prefix}{name}": one for name, one in state.items()}


def lightning(state: State) -> Any:
    """As Lightning's ModelCheckpoint saves a module whose detector is ``self.model``."""
    own = {f"model.{name}": one for name, one in state.items()}
    callbacks = {"ModelCheckpoint{'monitor': 'map'}": {"best_model_score": torch.tensor(0.4)}}
    return {
        "epoch": 3, "global_step": 99, "pytorch-lightning_version": "2.5.0", "callbacks": callbacks,
        "state_dict": OrderedDict(own | {"map_metric.total": torch.zeros(1), "loss.weight": torch.ones(4)}),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}], "hyper_parameters": {"lr": 1e-3},
    }  # fmt: skip


def inside(state: State) -> Any:
    """A compiled submodule, wrapped by FSDP."""
    return {n.replace("backbone.", "backbone._orig_mod._fsdp_wrapped_module."): one for n, one in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "DDP": under("module."),
    "compiled": under("_orig_mod."),
    "compiled DDP": under("module._orig_mod."),
    "DDP compiled": under("_orig_mod.module."),
    "model": under("model."),
    "nested": under("model._orig_mod.module.detector."),
    "a name of its own": under("my_net.core."),
    "inside": inside,
    "lightning": lightning,
    "two wrappers": lambda state: {"model": {"state_dict": under("module.")(state)}, "epoch": 1},
    "averaged": lambda state: {
        "model": {name: one * 0 for name, one in state.items()},
        "ema": {"module": state, "updates": 7},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
    },
    "torchvision's average": lambda state: {
        "model": {name: one * 0 for name, one in state.items()},
        "model_ema": under("module.")(state) | {"n_averaged": torch.tensor(4)},
    },
    "no average": lambda state: {"model": state, "ema": None},
    "another wrapper": lambda state: {"detector_weights": state, "optimizer": {"state": {0: {"m": torch.ones(1)}}}},
    "a second copy": lambda state: under("model.")(state) | {"teacher.backbone.body.conv1.weight": torch.ones(2)},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_detector_is_found_inside_other_modules(how: str, small: nn.Module, tmp_path: Path) -> None:
    state = small.state_dict()
    torch.save(WRAPPED[how](state), tmp_path / "theirs.pth")
    foreign = read_foreign(tmp_path / "theirs.pth")
    assert foreign.state.keys() == state.keys()
    assert all(torch.equal(foreign.state[name], one) for name, one in state.items())
    assert foreign.layout == layout_in(read_archive(tmp_path / "theirs.pth"))
    assert (foreign.layout.dialect, foreign.layout.case, foreign.layout.classes) == ("torchvision", "faster_rcnn", 3)
    start = open_initial(tmp_path / "theirs.pth")
    assert start is not None, "likewise as initial weights"
    assert len(start.weights()) == len(state)


def test_an_import_of_lightning_s_file_with_class_names(
    theirs: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tldet")
    torch.save(lightning(theirs.state_dict()), tmp_path / "last.ckpt")
    torch.save(theirs.state_dict(), tmp_path / "plain.pth")
    import_checkpoint(tmp_path / "plain.pth", out=tmp_path / "plain.pt")
    out = str(tmp_path / "ours.pt")
    assert main(["import", str(tmp_path / "last.ckpt"), "--out", out, "--classes", "猫", "red cell", "x,y"]) == 0
    ours, plain = checkpoint.load_checkpoint(out), checkpoint.load_checkpoint(tmp_path / "plain.pt")
    assert ours["meta"]["class_names"] == ["猫", "red cell", "x,y"]
    assert ours["meta"]["category_ids"] == [1, 2, 3]
    assert plain["meta"]["class_names"] == ["class 1", "class 2", "class 3"]
    assert all(torch.equal(plain["model"][name], one) for name, one in ours["model"].items())
    assert "2 tensors outside the detector not used: map_metric.total, loss.weight" in caplog.text


@pytest.mark.parametrize(("prefix", "name"), [("", "w.safetensors"), ("module._orig_mod.", "weights.bin")])
def test_safetensors(theirs: nn.Module, tmp_path: Path, prefix: str, name: str) -> None:
    state = {f"{prefix}{name}": one.clone() for name, one in theirs.state_dict().items()}
    save_file(state, tmp_path / name, {"format": "pt"})
    written = import_checkpoint(tmp_path / name, out=tmp_path / "ours.pt", classes=["a", "b", "c"])
    assert checkpoint.load_checkpoint(written)["meta"]["class_names"] == ["a", "b", "c"]
    assert open_initial(tmp_path / name) is not None


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{", b"\xff" * 8 + b"{}", bytes(200)])
def test_a_broken_safetensors_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: is not a safetensors file or is cut off"):
        read_foreign(path)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model._orig_mod.backbone."])
def test_a_backbone_s_weights_are_found_too(tmp_path: Path, prefix: str) -> None:
    from torchvision.models._utils import IntermediateLayerGetter

    torch.manual_seed(1)
    net = resnet18(weights=None)
    own = IntermediateLayerGetter(resnet18(weights=None), {"layer4": "0"})
    torch.save({"state_dict": {f"{prefix}{name}": one for name, one in net.state_dict().items()}}, tmp_path / "b.pth")
    assert open_initial(tmp_path / "b.pth") is None
    report = load_backbone_weights(own, str(tmp_path / "b.pth"))
    assert not report.new
    assert torch.equal(own.state_dict()["conv1.weight"], net.state_dict()["conv1.weight"])


def test_class_names_of_one_stage_models_may_leave_background_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3).state_dict(), tmp_path / "f.pth")
    for names in (["a", "b"], ["none", "a", "b"]):
        written = import_checkpoint(tmp_path / "f.pth", out=tmp_path / f"{len(names)}.pt", classes=names)
        meta = checkpoint.load_checkpoint(written)["meta"]
        assert meta["class_names"] == ([BACKGROUND_NAME, *names] if len(names) == 2 else names)
        assert len(meta["category_ids"]) == 3
    with pytest.raises(
        CheckpointError, match=r"--classes: 1 name for a model with 3 classes \(or 2 without background"
    ):
        import_checkpoint(tmp_path / "f.pth", out=tmp_path / "none.pt", classes=["a"])
    assert not (tmp_path / "none.pt").exists()


def test_class_names_from_files(tmp_path: Path) -> None:
    path = tmp_path / "names"
    texts = {
        "cat\n\n dog \n": ("cat", "dog"),
        "\ufeffcat\r\ndog": ("cat", "dog"),
        '["a", "b"]': ("a", "b"),
        json.dumps({"images": [], "categories": [{"id": 7, "name": "late"}, {"id": 2, "name": "é"}]}): ("é", "late"),
    }
    for text, names in texts.items():
        path.write_text(text, encoding="utf-8")
        assert read_names([str(path)]) == names
    for text in ("[1, 2]", "{}", '{"categories": 3}', "", "a\na", "[", '[{"name": "a"}]'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="--classes"):
            read_names([str(path)])
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigError, match="--classes"):
        read_names([str(path)])
    with pytest.raises(ConfigError, match="'a' is repeated"):
        read_names(["a", "a"])


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["backbone.a", "head.b"], ""),
        (["model.backbone.a", "model.bbox_head.b", "x.y"], "model."),
        (["ema.backbone.a", "net.backbone.a", "net.neck.b"], "net."),
        (["backbone.backbone.a", "backbone.b"], ""),
        (["conv.weight"], ""),
        ([], ""),
    ],
)
def test_the_fullest_prefix_is_the_detector_s(names: list[str], prefix: str) -> None:
    assert detector_prefix(names) == prefix


def test_code_in_a_wrapped_file_never_runs(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": {"model.backbone.body.conv1.weight": torch.ones(1)}, "x": Trap()}, tmp_path / "t.ckpt")
    foreign = read_foreign(tmp_path / "t.ckpt")
    assert not (tmp_path / "ran").exists()
    assert list(foreign.state) == ["backbone.body.conv1.weight"]
    assert sum(foreign.set_aside.values()) >= 1
