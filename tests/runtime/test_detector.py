"""An exported detector on numpy arrays: the Predictor's inputs and detections, without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from tests.runtime.fake import MASKS, METADATA, FakeSession
from tldet.engine.precision import Precision
from tldet.errors import CheckpointError, ConfigError, DataError, NotAnImage
from tldet.inference.predictor import Predictor
from tldet.inference.runtimes.exported import ExportedDetector
from tldet.inference.scores import select_scores
from tldet.runtime import NumpyDetections, NumpyDetector
from tldet.runtime.metadata import parse_metadata
from tldet.runtime.network import open_session
from tldet.runtime.onnx_session import CPU, CUDA, _providers
from tldet.runtime.scores import ScoreSettings
from tldet.runtime.session import require_inputs

VARIANTS: list[dict[str, Any]] = [
    {}, {"size": [96, 128], "batch": 1}, {"size": [64, 160]}, {"masks": MASKS},
    {"masks": {**MASKS, "paste": "resized"}, "batch": 1}, {"scores": {"thresholds": {"cat": 0.2, "dög": 0.95}}},
    {"scores": {"temperature": 1.7}},
]  # fmt: skip


def detector_of(session: FakeSession) -> NumpyDetector:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tldet.runtime.detector.open_session", lambda *_, **__: session)
        return NumpyDetector("fake.onnx")


def predictor_of(session: FakeSession) -> Predictor:
    scores = ScoreSettings.of(session.metadata.get("scores"), session.metadata["class_names"], "fake.onnx")
    input_size = session.metadata["input"]
    return Predictor(ExportedDetector(session), [7, 3], **input_size, precision=Precision(), scores=scores)


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 9), max(2, width // 9), 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([".jpg", ".png", "array"]), st.sampled_from(VARIANTS))
def test_the_network_gets_the_bytes_it_gets_from_the_predictor(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, form: str, changes: dict[str, Any]
) -> None:
    image: Any = image_of(height, width)
    if form != "array":
        path = tmp_path_factory.mktemp("images") / f"a{form}"
        cv2.imwrite(str(path), image)
        image = path
    ours, theirs = FakeSession(**changes), FakeSession(**changes)
    found, expected = detector_of(ours)(image), predictor_of(theirs).predict(image)
    for one, other in zip(ours.given, theirs.given, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert_equal(found, expected)


def assert_equal(found: NumpyDetections, expected: Any) -> None:
    np.testing.assert_array_equal(found.boxes, expected.boxes.numpy())
    np.testing.assert_array_equal(found.scores, expected.scores.numpy())
    np.testing.assert_array_equal(found.labels, expected.labels.numpy())
    assert found.names == expected.names()
    assert found.to_coco(5) == expected.to_coco(5, [7, 3])


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_lists_of_all_forms(changes: dict[str, Any], tmp_path: Path) -> None:
    images = [image_of(60, 90), image_of(90, 60, 1), image_of(200, 320, 2), image_of(60, 90, 3), image_of(31, 47, 4)]
    cv2.imwrite(str(tmp_path / "a.png"), images[1][..., ::-1])
    content = cv2.imencode(".png", images[2][..., ::-1])[1].tobytes()
    given: list[Any] = [images[0], tmp_path / "a.png", content, images[3] / 255, images[4].transpose(2, 0, 1)]
    detector, predictor = detector_of(FakeSession(**changes)), predictor_of(FakeSession(**changes))
    expected = predictor.predict(images)
    for batch in (1, 3, 9):
        for one, other in zip(detector(given, batch=batch), expected, strict=True):
            assert_equal(one, other)
    assert_equal(detector(iter(given))[4], expected[4])
    assert_equal(detector(images[0][..., ::-1], channels="bgr"), expected[0])
    assert len(detector.predict(np.stack([images[0], images[3]]))) == 2
    assert detector([]) == []
    assert all(len(one) == 2 for one in detector(given, 0.0))
    assert [len(one) for one in detector(given, 1.0)] == [0] * 5


def test_images_of_other_shapes_are_not_in_one_batch() -> None:
    session = FakeSession()
    detector_of(session)([image_of(60, 90), image_of(90, 60), image_of(60, 90)])
    assert [images.shape for images, _ in session.given] == [(2, 96, 160, 3), (1, 160, 96, 3)]
    single = FakeSession(batch=1)
    detector_of(single)([image_of(60, 90)] * 3)
    assert [len(images) for images, _ in single.given] == [1, 1, 1]


def test_a_graph_of_a_fixed_size_gets_no_larger_image() -> None:
    session = FakeSession(size=[64, 160])
    detector_of(session)(image_of(300, 200))
    images, sizes = session.given[0]
    assert images.shape == (1, 64, 160, 3)
    assert sizes.tolist() == [[63, 42]]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.mask.decode
def test_masks_at_the_size_of_the_image() -> None:
    found = detector_of(FakeSession(masks=MASKS))(image_of(200, 300))
    assert found.masks is not None
    assert found.masks.shape == (2, 200, 300)
    segmentations = [record["segmentation"] for record in found.to_coco(1)]
    np.testing.assert_array_equal(np.stack([coco_mask.decode(one) for one in segmentations]), found.masks)
    assert json.loads(json.dumps(found.to_coco("x")))[0]["image_id"] == "x"
    assert found[[1]].masks is not None
    np.testing.assert_array_equal(found[np.array([False, True])].masks, found.masks[1:])


def test_selection_and_repr() -> None:
    found = detector_of(FakeSession())(image_of(60, 90))
    assert repr(found) == "NumpyDetections(2 objects: 1 dög, 1 cat)"
    assert repr(found[:0]) == "NumpyDetections(0 objects)"
    assert found[found.labels == 0].names == ["cat"]
    assert found[[]].boxes.shape == (0, 4)
    assert repr(detector_of(FakeSession())) == "NumpyDetector(2 classes: cat, dög; input 96 x 160; fake)"


def test_drawing(tmp_path: Path) -> None:
    image = np.full((200, 300, 3), 99, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    found = detector_of(FakeSession(masks=MASKS))(image)
    drawn = found.draw(image)
    assert drawn.shape == image.shape
    assert (drawn != 99).any(2).sum() > 1000
    assert (image == 99).all(), "the image given stays as it was"
    for other in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        np.testing.assert_array_equal(found.draw(other), drawn)
    plain = found.draw(image, scores=False)
    assert (plain != drawn).any()
    np.testing.assert_array_equal(found[:0].draw(image), image)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, r"^image: NoneType is not an image \(cv2.imread returns None"),
        ("none.jpg", "none.jpg: no such file"),
        ("", "image: the path is empty"),
        (b"words", "image: is not an image that OpenCV can read"),
        (b"", "image: is an empty file"),
        (np.zeros((8, 9), np.int64), "image: values are int64"),
        (np.zeros((7, 8, 9), np.uint8), r"image: shape \(7, 8, 9\) is not an image"),
        ([image_of(20, 20), 5], "^image 1: int is not an image"),
        ([image_of(20, 20), image_of(20, 20) * 1.0], r"image 1: float values from"),
    ],
)
def test_an_invalid_image_is_one_line(images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        detector_of(FakeSession())(images)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, NotAnImage) == (not isinstance(images, (str, bytes, list)) or "int is" in message)


def test_a_stream_goes_on_after_an_image_that_cannot_be_read() -> None:
    detector = detector_of(FakeSession())
    found = list(detector.stream([image_of(9, 9), b"", "none.png", image_of(30, 30)], batch=3))
    assert [isinstance(one, DataError) for _, one in found] == [False, True, True, False]
    for wrong in ({"batch": 0}, {"channels": "gbr"}):
        with pytest.raises(ValueError, match="must be "):
            detector(image_of(9, 9), **wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "raw"}, "was exported with --raw"),
        ({"format": 2}, "has metadata version 2, but this version of tldet reads 1"),
        ({"class_names": None}, "is not a detector exported by tldet"),
        ({"category_ids": [1]}, "has 2 class names, but 1 category id"),
        ({"category_ids": [1, "2"]}, "category ids that are not 64-bit integers"),
        ({"input": {"short": 96}}, "it must be short and long in pixels"),
        ({"input": {"short": 0, "long": 5}}, "it must be short and long in pixels"),
        ({"size": [96, 100]}, r"has size \[96, 100\] in its metadata; it must be two multiples of 32"),
        ({"size": 96}, "has size 96"),
        ({"batch": 4}, "has batch 4"),
        ({"format": 0}, "is not a detector exported by tldet"),
        ({"format": True}, "is not a detector exported by tldet"),
        ({"class_names": [], "category_ids": []}, "has no class names"),
        ({"category_ids": [1, 2**63]}, "category ids that are not 64-bit integers"),
        ({"input": {"short": 10**7, "long": 10**7}}, "it must be short and long in pixels"),
        ({"size": [32 * 10**6, 32 * 10**6]}, "at most 179 million pixels, or null"),
        ({"scores": 5}, "has scores 5"),
        ({"masks": {"threshold": "x", "paste": "sampled"}}, "a threshold from 0 to 1 and a known paste"),
        ({"masks": {"threshold": 0.5, "paste": "x"}}, "a threshold from 0 to 1 and a known paste"),
        ({"masks": {"threshold": 0.5}}, "has masks"),
    ],
)
def test_malformed_metadata_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as raised:
        parse_metadata(json.dumps({**METADATA, **change}), Path("m.onnx"))
    assert str(raised.value).startswith("m.onnx: ")


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"format": 1}', "[" * 100_000, "1" * 5000])
def test_files_of_others_are_named(text: str | None) -> None:
    with pytest.raises(CheckpointError, match=r"m\.onnx: is not a detector exported by tldet"):
        parse_metadata(text, Path("m.onnx"))


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("none.onnx", {}, CheckpointError, "none.onnx: no such file"),
        ("m.pt2", {}, CheckpointError, r"m\.pt2: must be an \.onnx or \.xml file"),
        ("m.onnx", {"threads": 0}, ConfigError, "threads must be at least 1"),
        ("m.xml", {"providers": [CPU]}, ConfigError, r"m\.xml runs in OpenVINO"),
    ],
)
def test_files_and_options_that_do_not_fit(
    tmp_path: Path, name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    (tmp_path / "m.pt2").write_bytes(b"x")
    (tmp_path / "m.onnx").write_bytes(b"x")
    (tmp_path / "m.xml").write_bytes(b"x")
    with pytest.raises(error, match=message):
        open_session(tmp_path / name, **options)


@pytest.mark.parametrize(
    ("device", "given", "expected"),
    [
        ("auto", None, [CUDA, CPU]),
        ("cpu", None, [CPU]),
        ("cuda", None, [CUDA, CPU]),
        ("cuda:2", None, [(CUDA, {"device_id": 2}), CPU]),
        ("auto", ["X"], ["X", CPU]),
        ("auto", [CPU], [CPU]),
    ],
)
def test_providers_of_a_device(device: str, given: list[str] | None, expected: list[Any]) -> None:
    assert _providers(device, given, [CUDA, CPU, "X"]) == expected


@pytest.mark.parametrize(
    ("device", "given", "message"),
    [
        ("cuda", None, "the installed ONNX Runtime has no CUDA support; pip install onnxruntime-gpu"),
        ("gpu", None, "must be auto, cpu, cuda or cuda:N"),
        ("auto", ["X"], "providers: X is not available; ONNX Runtime has CPUExecutionProvider"),
        ("auto", [], "providers: specify at least one; ONNX Runtime has"),
        ("cpu", [CPU], "use either a device or providers, not both"),
    ],
)
def test_devices_and_providers_that_are_missing(device: str, given: list[str] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _providers(device, given, [CPU])
    assert _providers("auto", None, [CPU]) == [CPU]


def test_scores_are_selected_as_tensors_are() -> None:
    predictor = predictor_of(FakeSession())
    found = predictor.predict(image_of(60, 90), 0.0)
    for temperature in (None, 0.4, 3.0):
        for score in (None, 0.0, 0.3, 0.5, 1.0):
            settings = ScoreSettings((0.305, 0.95), temperature)
            chosen = select_scores(found, settings, score)
            rows, scores = settings.select(found.scores.numpy(), found.labels.numpy(), score)
            assert chosen.scores.tolist() == scores.tolist()
            assert chosen.labels.tolist() == found.labels.numpy()[rows].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found[:3], "has 3 outputs instead of 4"),
        (lambda found: [*found[:3], found[3][:0]], "has outputs of shapes"),
        (lambda found: [found[0][..., :2], *found[1:]], "has outputs of shapes"),
        (lambda found: [*found[:2], found[2] + 5, found[3]], "outputs labels outside its 2 classes"),
        (lambda found: [*found[:2], found[2] - 1, found[3]], "outputs labels outside its 2 classes"),
        (lambda found: [*found[:3], found[3] + 50], "outputs counts of detections above the number of rows"),
        (lambda found: [found[0] * np.nan, *found[1:]], "outputs boxes or scores that are not finite"),
    ],
)
def test_outputs_that_are_not_detections(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Any]], list[Any]], message: str
) -> None:
    session = FakeSession()
    whole = session.run
    monkeypatch.setattr(session, "run", lambda images, sizes: change(whole(images, sizes)))
    monkeypatch.setattr("tldet.runtime.detector.open_session", lambda *_, **__: session)
    with pytest.raises(CheckpointError, match=rf"fake\.onnx: {message}.*; export the detector again"):
        NumpyDetector("fake.onnx")(image_of(60, 90))


def test_graphs_with_other_inputs() -> None:
    require_inputs(Path("m.onnx"), {"images": "uint8", "sizes": "int64"})
    for types in ({}, {"images": "float", "sizes": "int64"}, {"x": "uint8"}):
        with pytest.raises(CheckpointError, match=r"m\.onnx: has the inputs .* instead of images \(uint8\), sizes"):
            require_inputs(Path("m.onnx"), types)
