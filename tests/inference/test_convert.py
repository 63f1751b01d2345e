"""Images in every form that a predictor accepts."""

from __future__ import annotations

import http.server
import io
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tldet.data.images import read_image
from tldet.errors import DataError, NotAnImage
from tldet.inference.convert import from_array, is_list, open_image
from tldet.runtime.images import Limits

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GRAY, ALPHA = RGB[..., :1], RGB[..., 1:2]
OVER_WHITE = np.asarray(
    Image.alpha_composite(Image.new("RGBA", (9, 6), "white"), Image.fromarray(np.concatenate([RGB, ALPHA], 2))).convert(
        "RGB"
    )
)
GRAY_OVER_WHITE = np.asarray(
    Image.alpha_composite(
        Image.new("RGBA", (9, 6), "white"), Image.fromarray(np.concatenate([GRAY, GRAY, GRAY, ALPHA], 2))
    ).convert("RGB")
)


def last(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, 2)


def first(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(2, 0, 1))


ARRAYS = {
    "HWC": (RGB, RGB),
    "CHW": (first(RGB), RGB),
    "HW": (GRAY[..., 0], np.repeat(GRAY, 3, 2)),
    "HW1": (GRAY, np.repeat(GRAY, 3, 2)),
    "1HW": (first(GRAY), np.repeat(GRAY, 3, 2)),
    "gray and alpha": (last(GRAY, ALPHA), GRAY_OVER_WHITE),
    "gray and alpha, channels first": (first(last(GRAY, ALPHA)), GRAY_OVER_WHITE),
    "RGBA": (last(RGB, ALPHA), OVER_WHITE),
    "RGBA, channels first": (first(last(RGB, ALPHA)), OVER_WHITE),
    "float64": (RGB / 255, RGB),
    "float32": ((RGB / 255).astype(np.float32), RGB),
    "float16": ((RGB / 255).astype(np.float16), RGB),
    "float, channels first": (first(RGB / 255), RGB),
    "float RGBA": (last(RGB, ALPHA) / 255, OVER_WHITE),
    "float, beyond the range by rounding": (np.where(RGB == 255, 1.001, RGB / 255), RGB),
    "uint16": (RGB.astype(np.uint16) * 257, RGB),
    "uint16 gray": (GRAY[..., 0].astype(np.uint16) * 257, np.repeat(GRAY, 3, 2)),
    "bool": (GRAY[..., 0] > 99, np.repeat((GRAY > 99) * np.uint8(255), 3, 2)),
    "turned": (RGB[::-1, ::-1], RGB[::-1, ::-1]),
    "read-only": (np.frombuffer(RGB.tobytes(), np.uint8).reshape(RGB.shape), RGB),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_and_tensors(kind: str) -> None:
    given, expected = ARRAYS[kind]
    np.testing.assert_array_equal(from_array(given), expected)
    if kind != "turned":
        np.testing.assert_array_equal(from_array(torch.from_numpy(given.copy())), expected)
    assert from_array(given).flags.c_contiguous


def test_a_shape_of_both_layouts_is_that_of_its_library() -> None:
    both = np.random.default_rng(1).integers(0, 256, (3, 5, 3), np.uint8)
    np.testing.assert_array_equal(from_array(both), both)
    np.testing.assert_array_equal(from_array(torch.from_numpy(both)), both.transpose(1, 2, 0))


@pytest.mark.parametrize("given", [RGB, last(RGB, ALPHA), first(RGB), RGB / 255, torch.from_numpy(first(RGB))])
def test_bgr_is_the_same_image_with_swapped_channels(given: Any) -> None:
    swapped = np.asarray(given)
    swapped = swapped[[2, 1, 0]] if swapped.shape[0] == 3 else swapped[..., [2, 1, 0, 3][: swapped.shape[2]]]
    np.testing.assert_array_equal(from_array(swapped, "bgr"), from_array(given, "rgb"))
    np.testing.assert_array_equal(from_array(GRAY, "bgr"), from_array(GRAY, "rgb"))


def test_tensors_with_gradients_and_of_bfloat16() -> None:
    floats = torch.from_numpy(first(RGB) / 255).float()
    np.testing.assert_array_equal(from_array(floats.requires_grad_()), RGB)
    near = from_array(floats.detach().bfloat16()).astype(int)
    assert np.abs(near - RGB).max() <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 5, 5), np.uint8)[0, 0], r"shape \(5,\)"),
        (np.zeros((7, 8, 9), np.uint8), r"shape \(7, 8, 9\) is not an image"),
        (np.zeros((2, 3, 8, 9), np.uint8), r"shape \(2, 3, 8, 9\)"),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels"),
        (np.zeros((8, 9, 0), np.uint8), r"shape \(8, 9, 0\)"),
        (np.zeros((8, 9), np.int64), "values are int64; use uint8"),
        (np.zeros((8, 9), np.complex64), "values are complex64"),
        (np.zeros((8, 9), object), "values are object"),
        (RGB.astype(np.float32), r"float values from .* use float in 0\.\.1, or uint8"),
        (RGB / 255 * 4 - 2, r"float values from -"),
        (np.full((8, 9), np.nan), "float values from nan"),
        (np.full((8, 9), np.inf), "float values from inf"),
        (torch.zeros(3, 8, 9, device="meta"), "tensor cannot be read"),
        (torch.zeros(8, 9).to_sparse(), "tensor cannot be read"),
        (None, r"NoneType is not an image \(cv2.imread returns None"),
        (5, "int is not an image"),
        ({"image": RGB}, "dict is not an image"),
        (io.StringIO("words"), "not bytes; open it in binary mode"),
        ("", "the path is empty"),
        ("file:///a.jpg", "file addresses cannot be read"),
        ("s3://bucket/a.jpg", "s3 addresses cannot be read"),
        ("http://127.0.0.1:9/a.jpg", r"http://127\.0\.0\.1:9/a\.jpg: cannot be downloaded: "),
        ("http://[/a.jpg", r"cannot be downloaded: "),
        ("a\0.jpg", "null"),
        ("x" * 5000, "cannot be read: File name too long"),
        (b"words", "image: is not a readable image"),
        (b"", "image: is an empty file"),
    ],
)
def test_an_invalid_image_is_a_one_line_error(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        open_image(given, None)
    assert "\n" not in str(raised.value)


def test_other_objects_are_also_a_type_error() -> None:
    for given in (None, object(), np.zeros((8, 9), np.int32), np.zeros(3, np.uint8)):
        with pytest.raises(TypeError):
            open_image(given, None)
    assert issubclass(NotAnImage, DataError)


def png(array: np.ndarray = RGB) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_encoded_content(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    closed = path.open("rb")
    closed.close()
    kinds: list[Any] = [
        str(path),
        path,
        png(),
        bytearray(png()),
        memoryview(png()),
        io.BytesIO(png()),
        Image.open(path),
    ]
    kinds += [os.fspath(path), Image.fromarray(RGB)]
    for given in kinds:
        np.testing.assert_array_equal(open_image(given, None).image, RGB)
    with path.open("rb") as file:
        np.testing.assert_array_equal(open_image(file, None).image, RGB)
        with pytest.raises(DataError, match=r"a\.png: is an empty file"):
            open_image(file, None)  # read to its end
    with pytest.raises(DataError, match=r"a\.png: cannot be read: .*closed"):
        open_image(closed, None)


def test_encoded_content_is_turned_upright_and_reduced(tmp_path: Path) -> None:
    smooth = cv2.resize(RGB, (640, 480))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth).save(tmp_path / "a.jpg", exif=exif)
    content = (tmp_path / "a.jpg").read_bytes()
    for given in (content, io.BytesIO(content), tmp_path / "a.jpg"):
        reduced = open_image(given, (120, 160))
        assert (reduced.factor, reduced.whole) == (4, (640, 480))
    np.testing.assert_array_equal(open_image(content, None).image, read_image(tmp_path / "a.jpg"))


def test_the_limit_of_pixels_holds_for_encoded_content() -> None:
    for given in (png(), io.BytesIO(png())):
        with pytest.raises(DataError, match="image: has 9 x 6 pixels, more than the limit"):
            open_image(given, None, limits=Limits(53))
        assert open_image(png(), None, limits=Limits(54)).whole == (6, 9)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def test_urls(server: str, tmp_path: Path) -> None:
    (tmp_path / "ä b.png").write_bytes(png())
    (tmp_path / "page.html").write_text("<html>", encoding="utf-8")
    for address in (f"{server}/ä b.png", f"{server}/%C3%A4%20b.png?size=large#top"):
        np.testing.assert_array_equal(open_image(address, None).image, RGB)
    with pytest.raises(DataError, match=r"none\.png: cannot be downloaded: Not Found|File not found"):
        open_image(f"{server}/none.png", None)
    with pytest.raises(DataError, match=r"page\.html: is not a readable image"):
        open_image(f"{server}/page.html", None)


def test_lists_of_images_are_recognized(tmp_path: Path) -> None:
    batch = np.zeros((2, 6, 9, 3), np.uint8)
    several = [
        [RGB],
        (RGB,),
        iter([RGB]),
        (one for one in [RGB]),
        {"a.png"},
        batch,
        torch.from_numpy(batch),
        map(str, [1]),
    ]
    assert all(is_list(images) for images in several)
    paths = np.array(["a.png", "b.png"])
    assert is_list(paths)
    single = [
        RGB,
        torch.from_numpy(RGB),
        "a.png",
        Path("a.png"),
        b"",
        bytearray(),
        io.BytesIO(),
        Image.new("L", (2, 2)),
    ]
    assert not any(is_list(image) for image in [*single, None, 5, {"a": 1}, memoryview(b"x")])
