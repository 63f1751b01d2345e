"""Checkpoints whose metadata or weights are not what they must be are refused in one line that names the key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tldet import checkpoint
from tldet.config import read_config
from tldet.errors import CheckpointError
from tldet.inference.loading import load as load_predictor
from tldet.models.backbones import TorchvisionBackbone
from tldet.models.detector import build_detector
from tldet.transfer.initial_weights import init_from, open_initial
from tldet.transfer.interop.foreign import Foreign, fill
from tldet.transfer.provenance import checkpoint_outline
from tldet.transfer.restore import restore
from tldet.transfer.weights import load_backbone_weights

NAMES = ["a", "b"]
META: dict[str, Any] = {"class_names": NAMES, "category_ids": [1, 2], "input": {"short": 64, "long": 96}}
LONG = 10**500


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    config = read_config("retinanet_lite0").data
    config["model"]["head"]["num_classes"] = len(NAMES)
    config["model"]["backbone"]["weights"] = None
    return {"config": config, "meta": META, "model": build_detector(config["model"], NAMES).state_dict(), "ema": None}


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        *((meta, "meta must be a dict") for meta in (None, [], "text", 3)),
        *(
            ({**META, "input": value}, "meta.input must have 'short' and 'long', integers from 1 to 8192")
            for value in (
                None, 64, "64", [64, 96], {}, {"short": 64}, {"short": 64, "long": 96, "more": 1}, {"long": 96, 3: 1},
                *({"short": side, "long": 96} for side in (0, -1, 64.0, "64", None, True, [64], LONG, float("nan"))),
                {"short": 64, "long": 32769}, {"short": torch.tensor(64), "long": 96},
            )
        ),
        *(
            ({**META, "class_names": value}, "meta.class_names must be a list of distinct names")
            for value in (None, [], "ab", {"a": 1}, ["a", 1], ["a", None], ["a", "a"], [["a"], "b"], ["a", LONG])
        ),
        *(
            ({**META, "category_ids": value}, "meta.category_ids must be a list of 2 distinct integers")
            for value in (None, [], [1], [1, 2, 3], [1, 1], [1, "2"], [1, 2.0], [True, 2], {1: 2, 2: 3}, 12)
        ),
    ],
)  # fmt: skip
def test_malformed_metadata(tmp_path: Path, meta: Any, message: str) -> None:
    path = tmp_path / "a.pt"
    torch.save({"format": "tldet", "version": 1, "config": {"model": {}}, "meta": meta, "model": {}}, path)
    for read in (restore, load_predictor, checkpoint_outline, open_initial):
        with pytest.raises(CheckpointError) as raised:
            read(path)  # type: ignore[operator]
        assert str(raised.value).startswith(f"{path}: {message}, not "), read
        assert "\n" not in str(raised.value)


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "integer": (lambda tensor: tensor.long(), "is integer (torch.int64), in the model floating-point (torch.float32)"),
    "boolean": (lambda tensor: tensor > 0, "is boolean"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "is complex"),
    "NaN": (lambda tensor: tensor * float("nan"), "contains NaN or infinite values"),
    "infinite": (lambda tensor: tensor + float("inf"), "contains NaN or infinite values"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["head.cls_score.bias", "backbone.net.conv_stem.weight"])
def test_tensors_of_a_checkpoint(tmp_path: Path, whole: dict[str, Any], change: str, name: str) -> None:
    path, (make, message) = tmp_path / "a.pt", CHANGES[change]
    name = next(key for key in whole["model"] if key.endswith(name.rpartition(".")[2]) and key[0] == name[0])
    changed = {**whole["model"], name: make(whole["model"][name])}
    checkpoint.save(path, {**whole, "model": changed})
    detector = build_detector(whole["config"]["model"], NAMES)
    others = build_detector(
        {**whole["config"]["model"], "head": {**whole["config"]["model"]["head"], "num_classes": 3}}
    )
    for read in (restore, lambda path: init_from(detector, path), lambda path: init_from(others, path)):
        with pytest.raises(CheckpointError, match=r"a\.pt: ") as raised:
            read(path)
        assert f"{name} {message}" in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_tensors_of_a_backbone_file(tmp_path: Path, change: str, suffix: str) -> None:
    backbone = TorchvisionBackbone("resnet18")
    make, message = CHANGES[change]
    state = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    name = next(key for key in state if key.endswith("conv1.weight"))
    state[name] = make(state[name])
    path = tmp_path / f"a.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    with pytest.raises(CheckpointError, match=rf"a\.{suffix}: tensor ") as raised:
        load_backbone_weights(backbone, str(path))
    assert f"{name} {message}" in str(raised.value)


def test_half_precision_is_no_other_kind(tmp_path: Path, whole: dict[str, Any]) -> None:
    """Also in counters of BatchNorm, which programs convert with the rest."""
    path = tmp_path / "a.pt"
    checkpoint.save(path, {**whole, "model": {name: tensor.half() for name, tensor in whole["model"].items()}})
    assert next(restore(path)[0].parameters()).dtype == torch.float32


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_of_a_foreign_detector(change: str) -> None:
    make, message = CHANGES[change]
    model = torch.nn.Linear(2, 2)
    before = model.weight.clone()
    state = {"weight": make(torch.randn(2, 2)), "bias": torch.zeros(2)}
    foreign = Foreign(Path("a.pth"), {}, state, layout=None, averaged=[], others=[], set_aside=Counter())  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"^a\.pth: tensor weight ") as raised:
        fill(model, state, foreign, "a model")
    assert message in str(raised.value)
    assert torch.equal(model.weight, before)
