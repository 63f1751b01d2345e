"""Images and video, from files to files."""

from __future__ import annotations

import inspect
import json
import shutil
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

import tldet
from tests.data.test_images import frames as two_frames
from tests.inference.stand import Stand
from tldet.cli.main import build_parser, main
from tldet.data.images import read_image
from tldet.errors import ConfigError, DataError
from tldet.inference.predictor import Predictor
from tldet.inference.sources import find_sources
from tldet.inference.threads import BackgroundWorker, mapped, prefetch
from tldet.inference.video import Video
from tldet.inference.writer import VideoWriter
from tldet.runtime import SCORE
from tldet.runtime.scores import ScoreSettings
from tldet.system.device import cpu_has_bf16
from tldet.workflows.predict.predict import predict


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return tldet.load(run / "best.pt")


def test_drawings_never_go_over_the_images_given(run: Path, digits: Path, tmp_path: Path) -> None:
    for folder, name in (("x", "a.jpg"), ("y", "a.jpg"), ("z", "a_2.jpg")):
        (tmp_path / folder).mkdir()
        shutil.copy(sorted((digits / "test").glob("*.jpg"))[0], tmp_path / folder / name)
    before = (tmp_path / "x" / "a.jpg").read_bytes()
    with pytest.raises(DataError, match=r"a\.jpg: is an input"):
        predict(run / "best.pt", [tmp_path / "x"], out=tmp_path / "x")
    assert (tmp_path / "x" / "a.jpg").read_bytes() == before
    sources = find_sources([str(tmp_path / folder) for folder in ("x", "y", "z")]).sources
    assert [str(source.name) for source in sources] == ["a.jpg", "a_2.jpg", "a_2_2.jpg"]


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_every_kind_of_image_gives_the_same(predictor: Predictor, digits: Path) -> None:
    path = sorted((digits / "test").glob("*.jpg"))[0]
    array = read_image(path)
    kinds = [path, str(path), array, torch.from_numpy(array.transpose(2, 0, 1).copy()), Image.fromarray(array)]
    found = [predictor.predict(kind, score=0.0) for kind in kinds]
    assert len(found[0]) > 0
    assert all(torch.equal(one.boxes, found[0].boxes) for one in found)
    many = predictor.predict(kinds, score=0.0, batch=3)
    assert [len(one) for one in many] == [len(found[0])] * 5
    torch.testing.assert_close(many[0].boxes, found[0].boxes, atol=1e-3, rtol=1e-3)
    assert found[0].class_names == predictor.class_names
    assert "RetinaNetHead" in repr(predictor)
    with pytest.raises(TypeError, match=r"image: shape \(7, 8, 9\) is not an image"):
        predictor.predict(np.zeros((7, 8, 9), np.uint8))


def test_lists_iterators_and_batches_give_the_same(predictor: Predictor, digits: Path) -> None:
    arrays = [read_image(path) for path in sorted((digits / "test").glob("*.jpg"))[:3]]
    expected = predictor.predict(arrays, 0.0)
    stacked, taken = np.stack(arrays), 0

    def one_by_one() -> Iterator[object]:
        nonlocal taken
        for array in arrays:
            taken += 1
            yield array

    kinds = [tuple(arrays), one_by_one(), map(np.asarray, arrays), stacked, torch.from_numpy(stacked)]
    kinds += [stacked.transpose(0, 3, 1, 2), torch.from_numpy(stacked).permute(0, 3, 1, 2) / 255]
    for kind in kinds:
        found = predictor.predict(kind, 0.0)
        assert [torch.equal(a.boxes, b.boxes) for a, b in zip(found, expected, strict=True)] == [True] * 3
    assert taken == 3
    swapped = predictor.predict(stacked[..., ::-1], 0.0, channels="bgr")
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(swapped, expected, strict=True))
    assert not torch.equal(predictor.predict(arrays[0][..., ::-1], 0.0).scores, expected[0].scores)
    assert predictor.predict([]) == predictor.predict(iter([])) == predictor.predict(stacked[:0]) == []


def test_one_bad_image_does_not_lose_the_list(
    predictor: Predictor, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = sorted((digits / "test").glob("*.jpg"))[:2]
    (tmp_path / "b.jpg").write_bytes(b"")
    given = [good[0], tmp_path / "b.jpg", None, np.full((8, 9), np.nan), good[1], b"words"]
    with pytest.raises(DataError, match=r"b\.jpg: is an empty file"):
        predictor.predict(given)
    with pytest.raises(DataError, match=r"^image 1: NoneType is not an image"):
        predictor.predict([good[0], None])
    expected = predictor.predict([good[0], good[1]], 0.0)
    for images in (given, iter(given)):
        caplog.clear()
        found = predictor.predict(images, 0.0, on_error="skip")
        assert [one is None for one in found] == [False, True, True, True, False, True]
        assert torch.equal(found[0].boxes, expected[0].boxes)
        assert torch.equal(found[4].boxes, expected[1].boxes)
        assert caplog.text.count("skipped: ") == 4
    assert predictor.predict(None, on_error="skip") is None
    assert predictor.predict([None], on_error="skip") == [None]
    for wrong in ({"channels": "gbr"}, {"on_error": "ignore"}):
        with pytest.raises(ValueError, match=" must be "):
            predictor.predict(good, **wrong)


def test_python_and_the_command_have_the_same_threshold(predictor: Predictor) -> None:
    command = build_parser().parse_args(["predict", "c.pt", "a.jpg"])
    defaults = [inspect.signature(call).parameters["score"].default for call in (predict, Predictor.predict)]
    assert [command.score, *defaults] == [None] * 3, "the thresholds of the checkpoint"
    assert ScoreSettings().describe() == f"{SCORE:g}"


def test_a_turned_photograph_opened_by_pillow_is_found_in_as_its_file(predictor: Predictor, shared: Path) -> None:
    path = shared / "data" / "odd_images" / "exif_orientation_6.jpg"
    with Image.open(path) as opened:
        ours, theirs = predictor.predict(read_image(path), score=0.0), predictor.predict(opened, score=0.0)
    assert len(ours) == len(theirs) > 0
    torch.testing.assert_close(ours.boxes, theirs.boxes, atol=1.0, rtol=0)
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-2, rtol=0)


def test_boxes_lie_in_the_pixels_of_the_image(predictor: Predictor, digits: Path) -> None:
    """The same image at three times the size has the same boxes, three times as large."""
    array = read_image(sorted((digits / "test").glob("*.jpg"))[0])
    large = np.repeat(np.repeat(array, 3, 0), 3, 1)
    small, big = predictor.predict(array, 0.0), predictor.predict(large, 0.0)
    assert big.boxes[:, 2].max() > array.shape[1]
    assert big.boxes.max() <= large.shape[1]
    overlap = box_iou(small.boxes * 3, big.boxes)
    assert (overlap.amax(1) > 0.9).float().mean() > 0.9


def test_a_large_jpeg_is_decoded_smaller_and_its_boxes_stay(predictor: Predictor, digits: Path, tmp_path: Path) -> None:
    array = read_image(sorted((digits / "test").glob("*.jpg"))[0])
    large = cv2.resize(array, (4 * predictor.long, 4 * predictor.long * array.shape[0] // array.shape[1] // 8 * 8))
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), large[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert predictor.open(path).factor == 4
    ours, whole = predictor.predict(path, 0.0), predictor.predict(large, 0.0)
    assert ours.boxes.max() > 2 * predictor.long
    best = box_iou(ours.boxes[:20], whole.boxes).amax(1)
    assert (best > 0.9).float().mean() > 0.9


def test_odd_images(run: Path, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "odd_images"
    listed = json.loads((folder / "index.json").read_text())
    summary = predict(run / "best.pt", [folder], out=tmp_path / "out", json=tmp_path / "r.json", score=0.0)
    unreadable = {entry["file"] for entry in listed if entry["readable"] == "no"}
    partly = {entry["file"] for entry in listed if entry["readable"] == "partly"}
    failed = {Path(name).name for name in summary.failed}
    assert unreadable & {p.name for p in folder.iterdir() if p.suffix in {".jpg", ".png"}} <= failed
    assert failed <= unreadable | partly
    assert summary.images + len(failed) == len(listed)
    assert all(name in text for name, text in summary.failed.items())
    upright = {e["file"]: (e["upright_width"], e["upright_height"]) for e in listed if e.get("upright_width")}
    records = json.loads((tmp_path / "r.json").read_text())
    assert len(records) == summary.detections
    assert len({r["image_id"] for r in records}) > 10
    for record in records:
        x, y, w, h = record["bbox"]
        width, height = upright[Path(record["file_name"]).name]
        assert min(x, y, w, h) >= 0
        assert x + w <= width + 1e-3
        assert y + h <= height + 1e-3
    for name, size in upright.items():
        if name in failed:
            continue
        drawn = tmp_path / "out" / (name if Path(name).suffix != ".gif" else Path(name).stem + ".png")
        assert read_image(drawn).shape[1::-1] == size, f"{name} is drawn upright"


def test_results_are_computed_ahead_in_order() -> None:
    seen: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        seen.append(number)
        if number == 7:
            raise DataError("seven")
        return 2 * number

    stream = mapped(work, range(20), 3, 5)
    assert [next(stream) for _ in range(7)] == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(DataError, match="seven"):
        next(stream)
    time.sleep(0.1)
    assert max(seen) <= 12, "no more than five are computed ahead"


def test_images_with_several_frames_are_reported(
    run: Path, predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.gif", "b.tif"):
        two_frames(tmp_path, name)
    Image.new("RGB", (40, 30)).save(tmp_path / "c.png")
    summary = predict(run / "best.pt", [tmp_path])
    assert [Path(name).name for name in summary.several_frames] == ["a.gif", "b.tif"]
    assert "2 images with several frames (the first is used)" in summary.describe()
    assert "2 images have several frames, of which the first is used" in caplog.text
    caplog.clear()
    predictor.predict([tmp_path / "c.png", tmp_path / "a.gif"])
    assert "image 1: has 2 frames, of which the first is used" in caplog.text


def test_a_run_with_broken_files_only_fails(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="nothing predicted: 1 input could not be read"):
        predict(run / "best.pt", [tmp_path / "a.jpg"])


@pytest.mark.parametrize(("name", "frames"), [("two_cars.mp4", 38)])
def test_video(run: Path, shared: Path, tmp_path: Path, name: str, frames: int) -> None:
    summary = predict(run / "best.pt", [shared / "data" / "video" / name], out=tmp_path, json=tmp_path / "r.json")
    assert summary.frames == frames
    check_video(tmp_path / name, frames, shared / "data" / "video" / name)


@pytest.mark.slow
def test_the_long_video(run: Path, shared: Path, tmp_path: Path) -> None:
    summary = predict(run / "best.pt", [shared / "data" / "video" / "bottles.mp4"], out=tmp_path)
    assert summary.frames == 1189
    check_video(tmp_path / "bottles.mp4", 1189, shared / "data" / "video" / "bottles.mp4")


def check_video(path: Path, frames: int, source: Path) -> None:
    """H.264 a browser plays, as many frames at the same rate, the same images but for the boxes."""
    assert count_frames(path) == frames
    with av.open(str(path)) as made, av.open(str(source)) as given:
        stream, original = made.streams.video[0], given.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert abs(float(stream.average_rate) - float(original.average_rate)) < 0.01
        assert (stream.width, stream.height) == (original.width, original.height)
        ours = next(made.decode(video=0)).to_ndarray(format="rgb24")
        theirs = next(given.decode(video=0)).to_ndarray(format="rgb24")
    assert np.median(np.abs(ours.astype(int) - theirs)) <= 4
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "plays before it is loaded whole"


def test_video_of_odd_size_and_turned(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "odd.mp4", Fraction(30000, 1001)) as writer:
        for shade in range(7):
            writer.write(np.full((61, 99, 3), 30 * shade, np.uint8))
    video = Video(tmp_path / "odd.mp4")
    frames = [frame.image for frame in video]
    assert len(frames) == 7
    assert video.rate == Fraction(30000, 1001)
    assert frames[0].shape == (62, 100, 3)
    assert [round(float(f.mean()) / 30) for f in frames] == list(range(7))


def test_a_video_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    full = tmp_path / "full.mp4"
    full.symlink_to("/dev/full")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)

    def write(frames: int) -> None:
        with VideoWriter(full, Fraction(25)) as writer:
            for _ in range(frames):
                writer.write(noise)

    for frames in (200, 1):  # of a single one nothing is written before the end
        with pytest.raises(DataError, match=r"full\.mp4: cannot be written \(No space left"):
            write(frames)


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    found = Stand()
    monkeypatch.setattr("tldet.workflows.predict.predict.load", lambda *_, **__: found)
    return found


def test_a_drawing_that_cannot_be_written_ends_the_run(stand: Stand, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    records = tmp_path / "r.json"
    with pytest.raises(DataError, match=r"out/a\.png: cannot be written"):
        predict("c.pt", [tmp_path / "a.png", tmp_path / "b.png"], out=tmp_path / "out", json=records)
    assert not (tmp_path / "out" / "b.png").exists()
    with VideoWriter(tmp_path / "v.mp4", Fraction(25)) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "out" / "v.mp4").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"out/v\.mp4: cannot be written"):
        predict("c.pt", [tmp_path / "v.mp4"], out=tmp_path / "out")


def test_unreadable_files_are_counted_once(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "c.mp4").write_bytes(b"words")

    def broken(path: Path, _: object) -> None:
        raise DataError(f"{path}: is broken")

    summary = predict("c.pt", [tmp_path / "a.png", tmp_path / "c.mp4"], out=tmp_path / "out")
    assert (summary.images, list(summary.failed)) == (1, [str(tmp_path / "c.mp4")])
    stand.factor = 2  # then it is read whole for the drawing
    with monkeypatch.context() as patched:
        patched.setattr("tldet.workflows.predict.images.read_image", broken)
        with pytest.raises(DataError, match="nothing predicted: 1 input could not be read"):
            predict("c.pt", [tmp_path / "a.png"], out=tmp_path / "out", overwrite=True)


def test_invalid_videos_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"words")
    with pytest.raises(DataError, match="not a readable video"):
        Video(tmp_path / "a.mp4")


def test_ahead_hands_over_errors_and_stops() -> None:
    def items() -> object:
        yield 1
        raise ValueError("broken")

    taken = prefetch(items(), 2)  # type: ignore[arg-type]
    assert next(taken) == 1
    with pytest.raises(ValueError, match="broken"):
        next(taken)
    endless = prefetch(iter(int, 1), 2)
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]


def test_sources(digits: Path, tmp_path: Path) -> None:
    images = sorted((digits / "test").glob("*.jpg"))
    assert [s.path for s in find_sources([str(digits / "test" / "*.jpg")]).sources] == images
    assert len(find_sources([str(digits / "test")]).sources) == len(images)
    assert find_sources(["0"]).sources[0].kind == "camera"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(images[0], tmp_path / folder / "x.jpg")
    names = [str(s.name) for s in find_sources([str(tmp_path / "a"), str(tmp_path / "b")]).sources]
    assert names == ["x.jpg", "x_2.jpg"], "one drawing must not overwrite the other"
    for wrong in (tmp_path / "none.jpg", tmp_path / "*.gif"):
        with pytest.raises(DataError, match="no such"):
            find_sources([str(wrong)])
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="contains no image or video"):
        find_sources([str(tmp_path / "c")])


def test_an_unknown_device(run: Path) -> None:
    with pytest.raises(ConfigError, match="device"):
        tldet.load(run / "best.pt", device="tpu9")


def test_the_precision_can_be_chosen(run: Path, digits: Path, tmp_path: Path) -> None:
    image = sorted((digits / "test").glob("*.jpg"))[0]
    with pytest.raises(ConfigError, match=r"'fp16'.*--precision.*needs a CUDA GPU"):
        predict(run / "best.pt", [image], device="cpu", precision="fp16")
    assert tldet.load(run / "best.pt", precision="fp32").precision.name == "fp32"
    if cpu_has_bf16():
        found = predict(run / "best.pt", [image], score=0.05, device="cpu", precision="bf16")
        same = predict(run / "best.pt", [image], score=0.05, device="cpu", precision="fp32")
        assert found.records != same.records, "bf16 rounds"


def test_camera_that_is_not_there(run: Path) -> None:
    with pytest.raises(DataError, match="nothing predicted: 1 input could not be read"):
        predict(run / "best.pt", ["87"])


def test_images_are_drawn_in_their_own_format(run: Path, digits: Path, tmp_path: Path) -> None:
    image = sorted((digits / "test").glob("*.jpg"))[0]
    gif = tmp_path / "a.gif"
    Image.open(image).save(gif)
    predict(run / "best.pt", [image, gif], out=tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {image.name, "a.png"}
    assert cv2.imread(str(tmp_path / "out" / "a.png")) is not None


def test_work_behind_the_caller_is_done_in_order_and_its_error_comes_up() -> None:
    done: list[int] = []
    with BackgroundWorker(done.append, 2) as behind:
        for number in range(20):
            behind.put(number)
    assert done == list(range(20))

    def fail(number: int) -> None:
        raise DataError(f"disk full at {number}")

    tried: list[int] = []

    def feed(count: int, error: Exception | None = None) -> None:
        with BackgroundWorker(fail, 1) as failing:
            for number in range(count):
                tried.append(number)
                failing.put(number)
                time.sleep(0.01)
            if error:
                raise error

    for count in (100, 1):
        with pytest.raises(DataError, match="disk full at 0"):
            feed(count)
    assert len(tried) < 50, "it comes up soon, not at the end"
    with pytest.raises(ValueError, match="own"):
        feed(1, ValueError("the caller's own error"))


@pytest.mark.parametrize(("flag", "chosen"), [([], None), (["--nms-per-class"], True), (["--nms-agnostic"], False)])
def test_the_command_passes_the_choice_of_nms_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: list[str], chosen: bool | None
) -> None:
    given: list[object] = []

    def loaded(*_: object, nms_per_class: bool | None, **__: object) -> Stand:
        given.append(nms_per_class)
        return Stand()

    monkeypatch.setattr("tldet.workflows.predict.predict.load", loaded)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert main(["predict", "c.pt", str(tmp_path / "a.png"), *flag]) == 0
    assert given == [chosen]


def test_class_names_without_a_font_are_reported_once(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stand, "class_names", ("cat", "\ue001", "\ue002"), raising=False)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    predict("c.pt", [tmp_path / "a.png", tmp_path / "b.png"], out=tmp_path / "out")
    assert caplog.text.count("no installed font has all characters of 2 class names") == 1
