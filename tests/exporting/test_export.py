"""Exported detectors find what the checkpoint finds, in every runtime."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tldet
from tests.tools import with_slow
from tldet import checkpoint
from tldet.config import read_config
from tldet.errors import CheckpointError, ConfigError, DataError
from tldet.exporting import files
from tldet.exporting.files import write_export
from tldet.exporting.graph import GraphOptions, output_names, prepare_for_tracing, trace_graph
from tldet.exporting.tensorrt import unsupported_operators
from tldet.exporting.verify import TOLERANCES, Comparison, compare_detections
from tldet.inference.runtimes.exported import ExportedDetector, load_exported
from tldet.models.detector import Detector, build_detector
from tldet.models.replace import replace_backbone
from tldet.runtime.metadata import METADATA_VERSION
from tldet.runtime.session import INPUTS
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.target import Target
from tldet.workflows.convert import convert
from tldet.workflows.export.export import ExportResult, export

FAMILIES = ["retinanet_lite0", "fcos_lite0", "gfl_lite0", "faster_rcnn_lite0", "mask_rcnn_lite0", "dfine_lite0"]
RECIPES = sorted(path.stem for path in Path("configs/recipes").glob("*.py"))
SIZE = (96, 128)


def detector(recipe: str, backbone: str | None = None) -> Detector:
    """Random weights whose scores are spread over 0..1."""
    torch.manual_seed(0)
    section = read_config(recipe).data["model"]
    if backbone:
        section, _ = replace_backbone(section, backbone, scratch=True)
    section["backbone"]["weights"] = None
    section["head"]["num_classes"] = 3
    model = build_detector(section, ["a", "b", "c"]).eval()
    with torch.no_grad():
        for name in model.head.class_layers:  # type: ignore[union-attr]
            layer: Any = model.head.get_submodule(name)  # type: ignore[operator]
            layer.weight.copy_(0.2 * torch.randn(layer.weight.shape))
    return model


def images(count: int, size: tuple[int, int] = SIZE) -> Batch:
    """Smooth random images; the second one is smaller than the padding."""
    random = torch.Generator().manual_seed(1)
    pixels = torch.nn.functional.interpolate(255 * torch.rand(count, 3, 7, 9, generator=random), size, mode="bilinear")
    sizes = [size, (size[0] - 10, size[1] - 30)][:count]
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    return Batch(pixels.byte(), sizes, [nothing] * count, list(sizes))


def exported(model: Detector, path: Path, format: str, precision: str = "fp32", **given: Any) -> ExportedDetector:
    """Export a detector, which is changed, and load the file."""
    options = GraphOptions(SIZE, **given)
    prepare_for_tracing(model, half=precision == "fp16")
    head: Any = model.head
    metadata = {
        "format": METADATA_VERSION, "kind": "detector", "class_names": ["a", "b", "c"], "category_ids": [1, 2, 3],
        "input": {"short": 96, "long": 128}, "precision": precision,
        "size": None if options.dynamic_size else list(SIZE), "batch": None if options.dynamic_batch else 1,
        "masks": {"threshold": head.mask_threshold, "paste": head.mask_paste} if model.predicts_masks else None,
    }  # fmt: skip
    write_export(format, trace_graph(model, options), path, (tuple(INPUTS), output_names(model, options)), metadata)
    return load_exported(path)


def assert_same(model: Detector, found: ExportedDetector, batch: Batch, precision: str = "fp32") -> None:
    expected, got = model.predict(batch), found.predict(batch)
    comparison = compare_detections(expected, got, TOLERANCES[precision], Comparison())
    assert comparison.reference > 0
    assert comparison.fraction >= TOLERANCES[precision].matched, comparison.describe()
    if model.predicts_masks and len(got[0]):
        shapes = [one.masks.patches.shape for one in (expected[0], got[0])]  # type: ignore[union-attr]
        assert shapes[0][1:] == shapes[1][1:]


@pytest.mark.parametrize("recipe", with_slow(RECIPES, set(RECIPES) - set(FAMILIES)))
def test_onnx_runtime_finds_the_same(recipe: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = detector(recipe)
    assert_same(model, exported(model, tmp_path / "m.onnx", "onnx"), images(2))
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"], "one file, and nothing left over"
    assert unsupported_operators(onnx.load(tmp_path / "m.onnx")) == []


@pytest.mark.parametrize("recipe", with_slow(RECIPES, set(RECIPES) - {"gfl_lite0"}))
def test_openvino_finds_the_same(recipe: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = detector(recipe)
    assert_same(model, exported(model, tmp_path / "m.xml", "openvino"), images(2))


@pytest.mark.parametrize("recipe", with_slow(FAMILIES, set(FAMILIES) - {"retinanet_lite0"}))
def test_torch_export_finds_the_same(recipe: str, tmp_path: Path) -> None:
    model = detector(recipe)
    assert_same(model, exported(model, tmp_path / "m.pt2", "torch"), images(2))


@pytest.mark.parametrize(
    "recipe",
    with_slow(
        ["gfl_lite0", "faster_rcnn_lite0", "mask_rcnn_lite0", "dfine_lite0"],
        ["gfl_lite0", "mask_rcnn_lite0", "dfine_lite0"],
    ),
)
def test_any_batch_and_size(recipe: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = detector(recipe)
    found = exported(model, tmp_path / "m.onnx", "onnx", dynamic_batch=True, dynamic_size=True)
    for batch in (images(2), images(1, (160, 96))):
        assert_same(model, found, batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_tiny", "vit_tiny_patch16_224"])
def test_backbones_of_timm(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = detector("retinanet_lite0", f"timm:{name}")
    assert_same(model, exported(model, tmp_path / "m.onnx", "onnx"), images(1))


@pytest.mark.parametrize("recipe", with_slow(FAMILIES, set(FAMILIES) - {"retinanet_lite0"}))
@pytest.mark.parametrize("format", with_slow(["onnx", "openvino", "torch"], ["onnx", "openvino"]))
def test_half_precision(recipe: str, format: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    suffix = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}[format]
    whole = detector(recipe)
    found = exported(detector(recipe), tmp_path / f"m{suffix}", format, "fp16")
    assert_same(whole, found, images(1), "fp16")
    sizes = [file.stat().st_size for file in tmp_path.iterdir() if file.suffix != ".xml"]
    weights = sum(p.numel() for p in whole.parameters())
    assert sum(sizes) < 3 * weights, "two bytes per weight"


def test_detections_are_compared_as_sets() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10.01], [20, 20, 30, 30]])
    one = Detections(boxes, torch.tensor([0.9, 0.9, 0.5]), torch.tensor([0, 0, 1]))
    other = Detections(boxes[[1, 0, 2]], torch.tensor([0.9, 0.9, 0.4]), torch.tensor([0, 0, 1]))
    tolerance = TOLERANCES["fp32"]
    result = compare_detections([one], [other], tolerance, Comparison())
    assert (result.matched, result.reference, result.exported) == (2, 3, 3), "the third one has another score"
    assert compare_detections([one], [one[:0]], tolerance, Comparison()).fraction == 0
    assert compare_detections([one[:0]], [one[:0]], tolerance, Comparison()).fraction == 1


def test_a_comparison_is_described_in_one_line() -> None:
    few = Comparison(images=1, reference=1, exported=1, matched=1, box=0.004, score=0.0001)
    assert few.describe() == (
        "1 of 1 detection on 1 image matched (100.00 %; differences up to 0.004 px and 0.0001 in score)"
    )
    many = Comparison(images=16, reference=1600, exported=1500, matched=1440)
    assert many.describe().startswith("1,440 of 1,600 detections on 16 images matched (90.00 %;")


@pytest.fixture(scope="module")
def result(run: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """Result of ``tldet export`` of a trained checkpoint."""
    pytest.importorskip("onnxruntime")
    return export(run / "best.pt", "onnx", out=tmp_path_factory.mktemp("export"))


def test_from_a_checkpoint_to_the_command_line(run: Path, result: ExportResult) -> None:
    assert result.passed
    assert result.comparison is not None
    assert result.comparison.fraction >= 0.99
    assert result.before is not None
    assert result.after == pytest.approx(result.before, abs=1e-3)
    predictor, original = tldet.load(result.path), tldet.load(run / "best.pt", precision="fp32")
    assert predictor.class_names == original.class_names
    assert predictor.category_ids == original.category_ids
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    expected, found = original.predict(image, 0.0), predictor.predict(image, 0.0)
    assert compare_detections([expected], [found], TOLERANCES["fp32"], Comparison()).fraction >= 0.99
    with pytest.raises(ConfigError, match="fixed in an exported detector"):
        tldet.load(result.path, nms_per_class=False)
    assert len(tldet.load(result.path, threads=1).predict(image, 0.0)) == len(found)
    for call in (tldet.load, tldet.test):
        with pytest.raises(
            ConfigError, match=r"--threads applies to \.onnx and \.xml files, not to .*best\.pt; for torch, set"
        ):
            call(run / "best.pt", threads=2)
    with pytest.raises(DataError, match="use --data"):
        tldet.test(result.path)


def test_metadata_are_in_the_file(result: ExportResult) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(result.path)
    stated = json.loads({entry.key: entry.value for entry in model.metadata_props}["tldet"])
    assert stated["opset"] == next(one.version for one in model.opset_import if one.domain == "")
    assert len(stated["checkpoint_sha256"]) == 64
    assert stated["thresholds"]
    assert {node.domain for node in model.graph.node} == {""}, "only standard operators"
    assert not any("tldet" in name for name in (node.doc_string for node in model.graph.node))


def test_it_is_verified_on_the_data_that_test_takes(run: Path, digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    convert(digits, to="yolo", out=tmp_path / "yolo")
    result = export(run / "best.pt", "onnx", out=tmp_path, data=tmp_path / "yolo", data_format="yolo", max_drop=1.0)
    expected = tldet.test(run / "best.pt", data=tmp_path / "yolo", precision="fp32")
    assert result.before == pytest.approx(expected.AP, abs=1e-9)
    by_split = [export(run / "best.pt", "onnx", out=tmp_path, split=one, max_drop=1.0).before for one in (None, "val")]
    expected_by_split = [tldet.test(run / "best.pt", split=one, precision="fp32").AP for one in ("test", "val")]
    assert by_split == pytest.approx(expected_by_split, abs=1e-9)


def test_a_wrong_key_of_the_evaluated_split_is_named(run: Path, tmp_path: Path) -> None:
    state = checkpoint.load_checkpoint(run / "best.pt")
    state["config"]["data"]["test"]["mask"] = True
    checkpoint.save(tmp_path / "wrong.pt", state)
    with pytest.raises(ConfigError, match=r"data\.test\.mask: unknown key; did you mean 'masks'\?"):
        export(tmp_path / "wrong.pt", "onnx", out=tmp_path)
    state["config"]["data"] = {}
    checkpoint.save(tmp_path / "none.pt", state)
    with pytest.raises(DataError, match="no data to evaluate on; use --data or --images, or --no-verify"):
        export(tmp_path / "none.pt", "onnx", out=tmp_path)


@pytest.mark.slow
def test_without_verification_no_data_are_needed(run: Path, tmp_path: Path) -> None:
    state = checkpoint.load_checkpoint(run / "best.pt")
    state["config"]["data"] = {}
    checkpoint.save(tmp_path / "none.pt", state)
    result = export(tmp_path / "none.pt", "torch", out=tmp_path, verify=False)
    assert (result.comparison, result.before, result.after) == (None, None, None)
    assert tldet.load(result.path).class_names == tuple("0123456789")


@pytest.mark.parametrize("format", with_slow(["torch", "onnx"], ["onnx"]))
def test_a_raw_network_is_no_detector(run: Path, tmp_path: Path, format: str) -> None:
    pytest.importorskip("onnxruntime")
    path = export(run / "best.pt", format, out=tmp_path, raw=True).path
    with pytest.raises(CheckpointError, match="exported with --raw"):
        tldet.load(path)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 half an archive"])
def test_other_files_are_named(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"wrong{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="wrong"):
        tldet.load(path)


def test_code_in_a_torch_export_file_is_not_run(tmp_path: Path) -> None:
    import zipfile

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    for name in ("m/data/constants/tensor_0", "m/data/sample_inputs/model.pt", "m/data/aotinductor/model.so"):
        path = tmp_path / "m.pt2"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/archive_format", "pt2")
            archive.writestr(name, (tmp_path / "evil.pt").read_bytes())
        with pytest.raises(CheckpointError, match="could run code"):
            tldet.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tldet.runtime.session.find_spec", lambda _: None)
    for suffix, extra in ((".onnx", "onnx"), (".xml", "openvino")):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(b"x")
        with pytest.raises(ConfigError, match=rf"pip install 'tldet\[{extra}\]'"):
            tldet.load(path)


def test_a_head_without_tensors_is_named() -> None:
    model = detector("retinanet_lite0")
    model.head = torch.nn.Identity()
    with pytest.raises(ConfigError, match="Identity has no decode_tensors"):
        trace_graph(model, GraphOptions(SIZE))


def test_openvino_files_are_of_one_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exports write their pairs of files one after the other."""
    write = files.write_bytes

    def save_model(model: Any, target: Path, **_: Any) -> None:
        target.write_bytes(model.content)
        target.with_suffix(".bin").write_bytes(model.content)

    def slowly(path: Path, content: bytes) -> None:
        write(path, content)
        if (path.suffix, content) == (".bin", b"first"):
            begun.set()
            time.sleep(0.5)

    begun = threading.Event()
    monkeypatch.setattr(files, "import_module", lambda _: SimpleNamespace(save_model=save_model))
    monkeypatch.setattr(files, "write_bytes", slowly)
    models = [SimpleNamespace(content=content, set_rt_info=lambda *_: None) for content in (b"first", b"second")]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(files.write_model, models[0], tmp_path / "m.xml", {})
        assert begun.wait(10)
        files.write_model(models[1], tmp_path / "m.xml", {})
        first.result(10)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"m.xml": b"second", "m.bin": b"second"}
