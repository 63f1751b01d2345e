"""TensorRT: engines where it is installed, elsewhere a check of the operators."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tldet.errors import CheckpointError, ConfigError
from tldet.exporting import tensorrt
from tldet.exporting.tensorrt import OPERATORS, build_engine, missing_requirement, unsupported_operators
from tldet.inference.runtimes.exported import load_exported
from tldet.workflows.export import engine
from tldet.workflows.export.export import export
from tldet.workflows.export.result import ExportResult


def model(*nodes: Any, k: int = 100) -> Any:
    onnx = pytest.importorskip("onnx")
    number = onnx.helper.make_tensor("k", onnx.TensorProto.INT64, [1], [k])
    return onnx.helper.make_model(onnx.helper.make_graph(list(nodes), "g", [], [], [number]))


def node(kind: str, *inputs: str, domain: str = "") -> Any:
    onnx = pytest.importorskip("onnx")
    return onnx.helper.make_node(kind, list(inputs), [f"{kind}_out"], domain=domain)


def test_the_operators_of_the_parser() -> None:
    assert len(OPERATORS) == 158
    assert {"Conv", "NonMaxSuppression", "RoiAlign", "NonZero", "TopK", "GridSample"} <= OPERATORS
    assert not {"QLinearConv", "Unique", "Compress", "Col2Im"} & OPERATORS


def test_operators_that_the_parser_lacks_are_named() -> None:
    assert unsupported_operators(model(node("Conv"), node("TopK", "x", "k"))) == []
    wrong = model(node("Unique"), node("Conv"), node("Bernoulli"), node("TopK", "x", "k"), k=4000)
    assert unsupported_operators(wrong) == ["Bernoulli", "TopK with K above 3839", "Unique"]
    assert unsupported_operators(model(node("Conv", domain="com.microsoft"))) == ["Conv"]


def test_without_tensorrt_the_onnx_file_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    assert missing_requirement() == "package tensorrt is not installed"
    monkeypatch.setattr(engine, "write_model", lambda model, path, metadata: path.write_bytes(b""))
    result = ExportResult(tmp_path / "m.engine")
    with caplog.at_level(logging.INFO):
        engine.write_tensorrt(model(node("Conv")), {}, result)
    assert result.passed
    assert result.path.name == "m.onnx"
    assert "no TensorRT engine built (package tensorrt is not installed); saving the ONNX file instead" in caplog.text
    assert "TensorRT 10.15 supports all 1 operator type in the ONNX file" in caplog.text
    result = ExportResult(tmp_path / "m.engine")
    engine.write_tensorrt(model(node("Unique"), node("Bernoulli")), {}, result)
    assert not result.passed
    assert result.reason == "TensorRT 10.15 does not support these ONNX operators: Bernoulli, Unique"


def test_a_file_that_tensorrt_rejects_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parser:
        num_errors = 1

        def __init__(self, *_: Any) -> None:
            pass

        def parse(self, content: bytes) -> bool:
            return False

        def get_error(self, number: int) -> Any:
            return SimpleNamespace(desc=lambda: f"node {number} is unknown")

    network = SimpleNamespace(create_network=lambda flags: None)
    fake = SimpleNamespace(
        __version__="10.0", Logger=lambda level: None, Builder=lambda logger: network, OnnxParser=Parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
    )  # fmt: skip
    fake.Logger.ERROR = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(tensorrt, "need", lambda *_: fake)
    with pytest.raises(ConfigError, match=r"TensorRT 10\.0 cannot read the ONNX file: node 0 is unknown"):
        build_engine(b"")


def test_engines_have_fixed_shapes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--dynamic is not available for TensorRT: engines take one image"):
        export(tmp_path / "any.pt", "tensorrt", dynamic="batch")


def test_an_engine_without_tensorrt_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    with pytest.raises(CheckpointError, match=r"m\.engine"):
        load_exported(path)
    path.write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"tensorrt is not installed: pip install 'tldet\[tensorrt\]'|CUDA GPU"):
        load_exported(path)
    with pytest.raises(ConfigError, match="device cuda:1: must be auto or cuda for a TensorRT engine"):
        load_exported(path, "cuda:1")


@pytest.mark.slow
def test_export_without_tensorrt(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    if not missing_requirement():
        pytest.skip("TensorRT and a GPU are there")
    result = export(run / "best.pt", "tensorrt", out=tmp_path)
    assert result.passed
    assert [path.name for path in tmp_path.iterdir()] == ["best.onnx"]
