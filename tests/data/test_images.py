"""Reading images, the odd and broken ones too."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tldet.data.images import read_image, read_reduced
from tldet.data.pillow import from_pillow
from tldet.errors import DataError
from tldet.runtime.images import DEFAULT_LIMITS, MAX_BYTES, MAX_PIXELS, Limits, fitted_size, reduction

UNREADABLE = {"truncated_60_percent.jpg", "corrupt_middle.png", "truncated_header.jpg", "empty.jpg", "text.jpg"}


def test_every_odd_image(shared: Path) -> None:
    folder = shared / "data/odd_images"
    for entry in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        path = folder / entry["file"]
        if entry["file"] in UNREADABLE:
            with pytest.raises(DataError) as raised:
                read_image(path)
            assert entry["file"] in str(raised.value)
            assert "\n" not in str(raised.value)
            continue
        image = read_image(path)
        assert image.dtype == np.uint8, entry["file"]
        assert image.shape == (entry["upright_height"], entry["upright_width"], 3), entry["file"]


def test_all_orientations_show_the_same_image(shared: Path) -> None:
    folder = shared / "data/odd_images"
    upright = read_image(folder / "exif_orientation_1.jpg").astype(int)
    for turn in range(2, 9):
        image = read_image(folder / f"exif_orientation_{turn}.jpg").astype(int)
        assert np.abs(image - upright).mean() < 4, turn


@pytest.mark.parametrize("mode", ["cmyk.jpg", "photo.webp", "photo.bmp", "photo.tif", "rgb16.png", "progressive.jpg"])
def test_colors_are_those_of_the_photograph(shared: Path, mode: str) -> None:
    folder = shared / "data/odd_images"
    plain, image = read_image(folder / "exif_orientation_1.jpg"), read_image(folder / mode)
    assert np.abs(image.mean((0, 1)) - plain.mean((0, 1))).max() < 12


def test_a_jpeg_equals_opencv_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), image)
    assert (read_image(path)[..., ::-1] == cv2.imread(str(path))).all()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a\.jpg: is a truncated JPEG"):
        read_image(path)


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [((480, 640), 800, 1333, (800, 1067)), ((300, 1200), 800, 1333, (333, 1333)), ((1, 400), 320, 512, (1, 512))],
)
def test_fitted_size(size: tuple[int, int], short: int, long: int, expected: tuple[int, int]) -> None:
    assert fitted_size(size, short, long) == expected


def jpeg(path: Path) -> Path:
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8), (60, 40))
    cv2.imwrite(str(path), image)
    return path


def test_a_photograph_with_a_film_behind_it(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg")
    alone, content = read_image(path), path.read_bytes()
    film = b"\x00\x00\x00\x18ftypmp42" + bytes(9000)
    path.write_bytes(content + film)
    assert np.abs(read_image(path).astype(int) - alone).max() <= 2, "two decoders may round differently"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.jpg: is a truncated JPEG"):
        read_image(path)


def test_pillow_reads_images_that_opencv_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jpeg(tmp_path / "a.jpg")
    alone = read_image(path)

    def refuse(*_: object) -> None:
        raise cv2.error("too many pixels")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    assert np.abs(read_image(path).astype(int) - alone).max() <= 2


def test_broken_exif_data_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6)).save(path, exif=b"II*\x00")
    with pytest.raises(DataError, match=r"a\.png: is not a readable image \(.+\)$"):
        read_image(path)


def test_pillow_s_images_go_the_same_road(shared: Path) -> None:
    folder = shared / "data/odd_images"
    names = [
        "rgba_alpha_gradient.png",
        "palette_transparent.png",
        "gray16.png",
        "bilevel.png",
        "photo.webp",
        "cmyk.jpg",
    ]
    for name in names:
        with Image.open(folder / name) as opened:
            np.testing.assert_array_equal(from_pillow(opened), read_image(folder / name), err_msg=name)
    with Image.open(folder / "exif_orientation_6.jpg") as opened:
        turned, expected = from_pillow(opened), read_image(folder / "exif_orientation_6.jpg")
    assert turned.shape == expected.shape
    assert np.abs(turned.astype(int) - expected).mean() < 1
    with Image.open(folder / "corrupt_middle.png") as opened, pytest.raises(DataError, match=r"corrupt_middle\.png"):
        from_pillow(opened)


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((3000, 4000), 320, 448, 8),
        ((3000, 4000), 800, 1333, 2),  # 1/4 would be 750 x 1000
        ((480, 640), 240, 320, 2),
        ((480, 640), 241, 400, 1),
        ((960, 1281), 240, 400, 1),  # an odd side would be rounded, and everything shifted
        ((964, 1284), 120, 200, 4),
        ((2000, 1000), 500, 300, 4),  # the long side decides
    ],
)
def test_reduction_factor_of_a_jpeg(
    size: tuple[int, int], short: int, long: int, expected: int, tmp_path: Path
) -> None:
    assert reduction(size, short, long) == expected
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    read = read_reduced(path, (short, long))
    assert read.factor == expected
    assert (read.image.shape[0] * read.factor, read.image.shape[1] * read.factor) == read.whole == size
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "a.png")
    assert read_reduced(tmp_path / "a.png", (short, long)).image.shape[:2] == size, "only JPEG can be read smaller"


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_image_is_not_shifted(tmp_path: Path, factor: int) -> None:
    """Squares on whole blocks keep their edges: the reduced image is the mean over ``factor`` x ``factor`` pixels."""
    whole = np.zeros((512, 768, 3), np.uint8)
    for top, left, side in ((64, 64, 64), (256, 512, 128), (448, 0, 64)):
        whole[top : top + side, left : left + side] = (250, 30, 60)
    cv2.imwrite(str(tmp_path / "a.jpg"), whole, [cv2.IMWRITE_JPEG_QUALITY, 100])
    size = (512 // factor, 768 // factor)
    read = read_reduced(tmp_path / "a.jpg", size)
    assert read.factor == factor
    mean = whole.reshape(size[0], factor, size[1], factor, 3).mean((1, 3))[..., ::-1]
    assert np.abs(read.image - mean).max() <= 4


def test_a_turned_jpeg_is_reduced_and_upright(shared: Path) -> None:
    folder = shared / "data/odd_images"
    whole = read_image(folder / "exif_orientation_6.jpg")
    bounds = (min(whole.shape[:2]) // 2, max(whole.shape[:2]) // 2)
    read = read_reduced(folder / "exif_orientation_6.jpg", bounds)
    assert read.factor == 2, whole.shape
    height, width = read.image.shape[:2]
    assert (height * 2, width * 2) == whole.shape[:2]
    mean = whole.reshape(height, 2, width, 2, 3).mean((1, 3))
    assert np.abs(read.image - mean).mean() < 3


def header(height: int, width: int, fill: int = 0) -> bytes:
    """A JPEG of a header and nothing else."""
    sizes = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    frame = b"\xff" * fill + b"\xff\xc0\x00\x11\x08" + sizes + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    return b"\xff\xd8" + frame + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + bytes(99) + b"\xff\xd9"


@pytest.mark.parametrize("fill", [0, 1, 3])
def test_a_huge_header_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: int
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(header(65500, 65500, fill))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    for bounds in (None, (320, 512)):
        with pytest.raises(DataError, match=r"a\.jpg: has 65500 x 65500 pixels, more than the limit of 179 million"):
            read_reduced(path, bounds)
    with pytest.raises(DataError, match=r"a\.jpg: is 65500 x 65500, but the annotations state 640 x 480"):
        read_image(path, Limits(stated=(480, 640)))


def test_a_real_jpeg_with_a_huge_header_is_refused_at_once(tmp_path: Path) -> None:
    """No decoder is replaced: decoding it would take 13 GB."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = 2 * (65500).to_bytes(2, "big")
    (tmp_path / "a.jpg").write_bytes(content)
    begun = time.process_time()
    with pytest.raises(DataError, match=r"a\.jpg: has 65500 x 65500 pixels, more than the limit of 179 million"):
        read_image(tmp_path / "a.jpg")
    assert time.process_time() - begun < 1


def test_a_header_without_a_size_is_refused(tmp_path: Path) -> None:
    for height, width in ((0, 64), (64, 0), (0, 0)):
        (tmp_path / "a.jpg").write_bytes(header(height, width))
        for limits in (DEFAULT_LIMITS, Limits(stated=(48, 64))):
            with pytest.raises(DataError, match=r"a\.jpg: "):
                read_reduced(tmp_path / "a.jpg", (320, 512), limits)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.gif", "a.webp", "a.bmp"])
def test_limits_on_the_size(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.new("RGB", (60, 40), "red").save(path)
    for stated in (None, (40, 60)):
        assert read_image(path, Limits(2400, stated)).shape == (40, 60, 3)
    with pytest.raises(DataError, match="is 60 x 40 upright, but the annotations state 40 x 60"):
        read_image(path, Limits(2400, (60, 40)))
    with pytest.raises(DataError, match=r"has 60 x 40 pixels, more than the limit of 0\.002399 million"):
        read_image(path, Limits(2399))
    with pytest.raises(DataError, match="is 60 x 40, but the annotations state 61 x 40"):
        read_image(path, Limits(stated=(40, 61)))


def test_the_limit_can_be_raised_beyond_pillow_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (60, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(DataError, match=r"a\.png: has too many pixels, more than the limit"):
        read_image(path)
    assert read_image(path, Limits(MAX_PIXELS + 1)).shape == (40, 60, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.jpg")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # without content on the disk
    cases = {
        "pipe.jpg": "is a pipe",
        "link.png": "is a pipe",
        "/dev/zero": "is a device",
        ".": "is a folder",
        "large.png": "has 2.0 GiB, too large for an image",
        "none.png": "no such file",
        "a\0.png": "null character",
        "x" * 300: "cannot be read: File name too long",
    }
    for name, message in cases.items():
        with pytest.raises(DataError, match=message):
            read_image(tmp_path / name)


SEVERAL = ("a.gif", "a.tif", "a.webp", "a.png")


def frames(folder: Path, name: str) -> Path:
    """Write an image of two frames, red and blue."""
    first, second = (Image.new("RGB", (40, 30), color) for color in ("red", "blue"))
    first.save(folder / name, save_all=True, append_images=[second])
    return folder / name


@pytest.mark.parametrize("name", SEVERAL)
def test_frames_of_an_image_are_counted(tmp_path: Path, name: str) -> None:
    image = read_reduced(frames(tmp_path, name), None)
    assert image.frames == 2
    red, _, blue = image.image.reshape(-1, 3).mean(0)
    assert (red > 200, blue < 50) == (True, True), "the first frame"
    Image.new("RGB", (40, 30), "red").save(tmp_path / name)
    assert read_reduced(tmp_path / name, None).frames == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error(tmp_path: Path, value: float) -> None:
    pixels = np.ones((30, 40), np.float32)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").min() == 255
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: is not a readable image \(it contains NaN or infinite values\)"):
        read_image(tmp_path / "a.tif")
