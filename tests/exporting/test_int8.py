"""Quantization to int8: the parts that lose accuracy are found by measurement and stay in fp32."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tldet
from tests.exporting.small import METADATA, SIZE, small_batches, small_detector
from tldet import checkpoint
from tldet.errors import ConfigError, DataError
from tldet.exporting import search as searching
from tldet.exporting.files import format_model, onnx_model, write_model
from tldet.exporting.graph import GraphOptions, output_names, prepare_for_tracing, trace_graph
from tldet.exporting.quantize import Quantizer, load_nncf, part_of
from tldet.exporting.search import PART_LIMIT, SearchOptions, search
from tldet.exporting.verify import detection_distance
from tldet.inference.runtimes.exported import graph_inputs, load_exported
from tldet.runtime.session import INPUTS
from tldet.structures.detections import Detections
from tldet.workflows.export.calibration import CalibrationImages
from tldet.workflows.export.export import export
from tldet.workflows.export.request import ExportRequest

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels)
    )


ONE = detections([[0, 0, 10, 10], [20, 20, 30, 30]], [0.9, 0.3], [0, 1])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (ONE, 0.0),
        (ONE[[1, 0]], 0.0),
        (ONE[:0], 1.0),
        (detections([[0, 0, 10, 10], [20, 20, 30, 30]], [0.9, 0.3], [1, 0]), 1.0),
        (detections([[0, 0, 10, 5], [20, 20, 30, 30]], [0.9, 0.3], [0, 1]), 1 - (0.5 * 1.8 + 0.6) / 2.4),
        (detections([[0, 0, 10, 10], [20, 20, 30, 30]], [0.45, 0.3], [0, 1]), 1 - (0.5 * 1.35 + 0.6) / 1.95),
    ],
)
def test_distance_of_detections(other: Detections, expected: float) -> None:
    assert detection_distance([ONE], [other]) == pytest.approx(expected, abs=1e-6)
    assert detection_distance([other], [ONE]) == pytest.approx(expected, abs=1e-6)


def test_images_without_detections_are_equal() -> None:
    assert detection_distance([ONE[:0]], [ONE[:0]]) == 0


GROUPS = [("stem", ["body.conv1", "body.bn1"]), ("layer1", ["body.layer1"])]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("backbone.body.bn1", "backbone.stem"),
        ("backbone.body.layer1.0.conv2", "backbone.layer1"),
        ("backbone.body.layer10.0", "backbone"),
        ("backbone", "backbone"),
        ("neck", "neck"),
        ("neck.lateral.0.0", "neck.lateral"),
        ("head.rpn.convs.0", "head.rpn.convs"),
        ("head.bbox_pred", "head.bbox_pred"),
        ("mul_5", None),
        ("headless.conv", None),
    ],
)
def test_parts_of_a_network(path: str, part: str | None) -> None:
    assert part_of(path, GROUPS) == part


class Parts:
    """A quantizer of four parts; a model is the set of the parts in int8."""

    model: Any = frozenset()
    harm = {"stem": 0.3, "body": 0.01, "neck": 0.0, "head": 0.04}  # noqa: RUF012

    def __init__(self) -> None:
        self.parts = {part: [part] for part in [*self.harm, "nothing"]}

    def quantize(self, parts: Collection[str], images: int, *, draft: bool = False) -> Any:
        return frozenset(parts)

    def only_part(self, part: str, draft: Any) -> Any | None:
        assert draft == set(self.parts)
        return None if part == "nothing" else frozenset([part])

    def distance(self, model: Any) -> float:
        return sum(self.harm[part] for part in model)


@pytest.mark.parametrize(
    ("limit", "expected", "reached"),
    [
        (0.06, {"body", "neck", "head"}, True),
        (0.02, {"body", "neck"}, True),
        (0.001, {"neck"}, True),
        (-1.0, {"neck"}, False),
    ],
)
def test_the_most_sensitive_parts_stay_in_fp32(limit: float, expected: set[str], reached: bool) -> None:
    parts: Any = Parts()
    found = search(parts, parts.distance, parts.distance, limit, SearchOptions(8, 4, 60.0))
    assert found.reached == reached
    assert found.model == expected
    assert set(found.kept) == set(Parts.harm) - expected
    assert found.kept["stem"] == "sensitivity 0.300"
    assert Parts.harm["stem"] > PART_LIMIT
    assert found.summary()["sensitivity"] == Parts.harm
    if not reached:
        assert found.reason().startswith(
            "int8 loses too much accuracy (no combination tried is within the limit; most sensitive"
        )


def test_the_time_limit_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(searching.time, "monotonic", lambda: float(next(now)))
    parts: Any = Parts()
    found = search(parts, parts.distance, lambda _: 1.0, 0.01, SearchOptions(8, 4, 5.0))
    assert not found.reached
    assert found.reason() == "int8 loses too much accuracy (time limit of 0:05 reached)"
    assert found.model == set(parts.parts), "parts of unknown sensitivity are quantized"
    assert found.sensitivity == {}


def quantizer(format: str) -> Quantizer:
    """The network of the small detector without decoding, with calibration images."""
    model, options = prepare_for_tracing(small_detector()), GraphOptions(SIZE, raw=True)
    program = trace_graph(model, options)
    graph = format_model(format, onnx_model(program, (tuple(INPUTS), output_names(model, options))))
    inputs = [dict(zip(INPUTS, graph_inputs(batch), strict=True)) for batch in small_batches(4)]
    return Quantizer(graph, model, inputs)


@pytest.mark.parametrize("format", ["openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_parts_are_quantized(format: str, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    given = quantizer(format)
    whole = ["stem", "stage1", "stage2"]
    assert [part for part in given.parts if part.startswith("backbone.")] == [f"backbone.{name}" for name in whole]
    assert {"neck.lateral", "neck.output", "head.cls_tower", "head.box_tower"} <= set(given.parts)
    assert all(node.startswith("neck.output.") for node in given.parts["neck.output"])
    draft = given.quantize(list(given.parts), 4, draft=True)
    (batch,), path = small_batches(5)[4:], tmp_path / f"m{SUFFIX[format]}"

    def errors(model: Any) -> list[float]:
        """Relative errors of the raw outputs: logits and deltas of two levels."""
        write_model(model, path, METADATA)
        found = load_exported(path).network.session.run(*graph_inputs(batch))
        return [
            float(np.linalg.norm(one - other) / np.linalg.norm(one)) for one, other in zip(expected, found, strict=True)
        ]

    write_model(given.model, path, METADATA)
    expected = load_exported(path).network.session.run(*graph_inputs(batch))
    assert all(0 < error < 0.2 for error in errors(draft))
    logits, deltas = np.array(errors(given.only_part("head.cls_tower", draft))).reshape(2, 2)
    assert ((logits > 1e-4) & (logits < 0.1)).all()
    assert (deltas < 1e-5).all(), "the box tower, the neck and the backbone are as before"
    given.parts["absent"] = []
    assert given.only_part("absent", draft) is None


def test_the_process_stays_as_it_is() -> None:
    pytest.importorskip("nncf")
    import logging
    import os

    before = logging.getLoggerClass(), dict(os.environ)
    load_nncf.cache_clear()
    load_nncf()
    assert (logging.getLoggerClass(), dict(os.environ)) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "torch"}, "--precision int8 is not available for format torch; use --format openvino or onnx"),
        (
            {"format": "tensorrt"},
            "--precision int8 is not available for format tensorrt; use --format openvino or onnx",
        ),
        ({"format": "onnx", "raw": True}, "--precision int8 cannot be combined with --raw"),
        ({"format": "onnx", "precision": "fp16", "calibration": "images"}, "--calibration requires --precision int8"),
    ],
)
def test_int8_where_there_is_none(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        export(tmp_path / "any.pt", **{"precision": "int8", **given})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load_nncf.cache_clear()
    monkeypatch.setattr("tldet.runtime.session.find_spec", lambda name: None if name == "nncf" else find_spec(name))
    with pytest.raises(ConfigError, match=r"nncf is not installed: pip install 'tldet\[int8\]'"):
        export(tmp_path / "any.pt", "openvino", precision="int8")


def calibration(state: dict[str, Any], run: Path, **given: Any) -> CalibrationImages:
    return CalibrationImages(state, ExportRequest(run / "best.pt", "openvino", precision="int8", **given))


def test_images_for_calibration(run: Path, digits: Path, tmp_path: Path) -> None:
    state = checkpoint.load_checkpoint(run / "best.pt")
    sample = calibration(state, run, calibration_images=10)
    assert (len(sample), sample.source) == (10, "training split")
    samples = list(sample.samples(None))  # type: ignore[arg-type]
    classes = {int(label) for one in samples for label in one.target.labels}
    assert len(classes) == len(state["meta"]["class_names"]), "every class is shown"
    again = list(calibration(state, run, calibration_images=10).samples(None))  # type: ignore[arg-type]
    assert all(torch.equal(one.image, other.image) for one, other in zip(samples, again, strict=True))
    folder = calibration(state, run, calibration=digits / "valid", calibration_images=4)
    assert (len(folder), folder.source) == (4, "valid")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: contains no image"):
        calibration(state, run, calibration=tmp_path / "empty")
    alone = copy.deepcopy(state)
    alone["config"]["data"] = {}
    with pytest.raises(DataError, match="its config has no training split; use --calibration DIR"):
        calibration(alone, run)
    moved = copy.deepcopy(state)
    moved["config"]["data"]["train"]["annotations"] = str(tmp_path / "gone.json")
    with pytest.raises(DataError, match=r"gone\.json.*--calibration DIR"):
        calibration(moved, run)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "onnx"])
def test_from_a_checkpoint_to_an_int8_file(format: str, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    whole = export(run / "best.pt", format, out=tmp_path / "fp32", verify=False).path
    result = export(run / "best.pt", format, out=tmp_path, precision="int8", calibration_images=8, max_drop=0.05)
    assert result.passed, result.reason
    assert result.before is not None
    assert result.after == pytest.approx(tldet.test(result.path, data=tmp_data(run)).AP, abs=1e-6)
    assert result.before - result.after <= 0.05
    assert "head.cls_score" in result.quantization["sensitivity"]
    predictor = tldet.load(result.path)
    assert "precision int8" in repr(predictor)
    stated = load_exported(result.path).metadata
    assert stated["precision"] == "int8"
    assert stated["quantization"] == json.loads(json.dumps(result.quantization))
    assert stated["quantization"]["calibration"] == {"images": 8, "source": "training split", "seed": 0}
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    assert predictor.predict(image, 0.0).scores.isfinite().all()

    def size(path: Path) -> int:
        return sum(file.stat().st_size for file in path.parent.iterdir() if file.stem == path.stem)

    assert size(result.path) < 0.6 * size(whole)


def tmp_data(run: Path) -> str:
    """The test split of the run."""
    return str(checkpoint.load_checkpoint(run / "best.pt")["config"]["data"]["test"]["annotations"])


@pytest.mark.slow
def test_a_drop_beyond_the_limit_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    from tldet.workflows.export import quantization

    monkeypatch.setattr(quantization.ExportData, "average_precision", lambda self, model: _aps(model))
    result = export(run / "best.pt", "openvino", out=tmp_path, precision="int8", calibration_images=4, minutes=1e-6)
    assert not result.passed
    assert "int8 loses too much accuracy (time limit of 0:00 reached" in result.reason
    assert "AP drops by 0.1000 (limit: 0.01)" in result.reason
    assert "stage: " in result.reason


def _aps(model: Any) -> float:
    return 0.4 if hasattr(model, "network") else 0.5
