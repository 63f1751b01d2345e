"""The stage and the layer that make a file differ from its checkpoint are found."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from tests.exporting.small import OPTIONS, small_batches, small_detector, write_small
from tests.tools import with_slow
from tldet.exporting.stages import Divergence, find_divergence

SUFFIX = {"torch": ".pt2", "onnx": ".onnx", "openvino": ".xml"}
MODULES = ["backbone.stage2.0", "neck.output.1", "head.box_tower.0.0"]
STAGES = {"backbone.stage2.0": "backbone.1", "neck.output.1": "neck.1", "head.box_tower.0.0": "head.deltas_"}
CASES = [f"{format} {module}{precision}" for format in SUFFIX for module in MODULES for precision in ("", " fp16")]


@pytest.mark.parametrize("case", with_slow(CASES, set(CASES) - {"torch neck.output.1"}))
def test_a_wrong_layer_is_named(case: str, tmp_path: Path) -> None:
    format, module, *precision = case.split()
    half = precision == ["fp16"]
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    model = small_detector()
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        wrong.get_submodule(module).weight.mul_(1.5)  # type: ignore[operator]
    path = tmp_path / f"m{SUFFIX[format]}"
    exported = write_small(wrong, path, format, half=half)
    (batch,) = small_batches(1)
    found = find_divergence(path, model, exported, batch, OPTIONS, half=half)
    assert found.stage.startswith(STAGES[module])
    assert found.errors["image"] < 1e-3
    assert max(found.errors.values()) > 0.1
    assert f"layer: {module} (" in found.describe()
    assert found.decoding < 0.01, "torch decodes the same from the file's raw outputs"


@pytest.mark.slow
def test_wrong_decoding_is_named(tmp_path: Path) -> None:
    model = small_detector()
    wrong = copy.deepcopy(model)
    wrong.head.anchors = copy.deepcopy(wrong.head.anchors)  # type: ignore[union-attr]
    wrong.head.settings = type(wrong.head.settings)(  # type: ignore[union-attr]
        **{**vars(wrong.head.settings), "weights": (0.5, 0.5, 0.5, 0.5)}  # type: ignore[union-attr]
    )
    path = tmp_path / "m.pt2"
    exported = write_small(wrong, path, "torch")
    found = find_divergence(path, model, exported, small_batches(1)[0], OPTIONS, half=False)
    assert max(found.errors.values()) < 1e-3
    assert "box decoding" in found.stage
    assert found.describe().startswith(
        "stage: after the head's raw outputs (RoI layers, box decoding or NMS); decoding"
    )


def test_the_steepest_growth_counts() -> None:
    errors = {"image": 0.0, "backbone.0": 0.01, "backbone.1": 0.02, "neck.0": 0.2, "neck.1": 0.1, "head.logits_0": 0.3}
    found = Divergence(errors, [("backbone.stem", 0.01), ("neck.lateral.0", 0.2)], 0.0, 0.5)
    assert found.stage == "neck.0"
    assert found.describe() == (
        "stage: neck.0 (relative error 20.00%, at most 2.00% before it), "
        "layer: neck.lateral.0 (relative error 20.00%, at most 1.00% before it)"
    )
