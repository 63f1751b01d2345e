"""OpenCV alone gives the pixels that Pillow gives tldet, in every format, or one line that says what it cannot read."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tldet.data.images import decode_image
from tldet.errors import DataError
from tldet.runtime.decoding import READER, over_white
from tldet.runtime.headers import size_of
from tldet.runtime.images import Limits

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (13, 21, 3), np.uint8)
ALPHA = RANDOM.integers(0, 256, (13, 21, 1), np.uint8)
RGBA, WIDE = np.concatenate([RGB, ALPHA], 2), RANDOM.integers(0, 65536, (13, 21, 4)).astype(np.uint16)
SMOOTH = cv2.resize(RGB, (64, 48))
PALETTE = Image.fromarray(RGB).quantize(32)


def encoded(image: Any, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def by_opencv(pixels: np.ndarray, extension: str) -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


def turned(format: str, orientation: int, pixels: np.ndarray = RGB, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels, format, exif=exif, **options)


GRAY, BITS = RGB[..., 0], Image.fromarray(RGB[..., 0]).convert("1")
READABLE = {
    **{f"{format} RGB": encoded(RGB, format) for format in ("PNG", "TIFF", "BMP", "GIF", "WEBP")},
    **{f"{format} gray": encoded(GRAY, format) for format in ("PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG")},
    **{f"{format} palette": encoded(PALETTE, format) for format in ("PNG", "TIFF", "BMP", "GIF")},
    **{f"{format} bits": encoded(BITS, format) for format in ("PNG", "TIFF", "BMP")},
    **{f"TIFF {name}": encoded(SMOOTH, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")},
    **{f"{format} turned {n}": turned(format, n) for format in ("PNG", "TIFF", "JPEG") for n in range(1, 9)},
    **{f"WEBP turned {n}": turned("WEBP", n, lossless=True) for n in range(1, 9)},
    "PNG alpha": encoded(RGBA, "PNG"),
    "PNG alpha, turned": turned("PNG", 6, RGBA),
    "PNG gray and alpha": encoded(Image.fromarray(RGBA[..., [0, 3]], "LA"), "PNG"),
    "PNG transparent color": encoded(RGB, "PNG", transparency=tuple(RGB[3, 4].tolist())),
    "PNG transparent palette": encoded(PALETTE, "PNG", transparency=3),
    "PNG 16 bits, gray": by_opencv(WIDE[..., 0], ".png"),
    "PNG 16 bits": by_opencv(WIDE[..., :3], ".png"),
    "PNG 16 bits, alpha": by_opencv(WIDE, ".png"),
    "TIFF 16 bits": by_opencv(WIDE[..., :3], ".tif"),
    "WEBP alpha": encoded(RGBA, "WEBP", lossless=True),
    "WEBP alpha, turned": turned("WEBP", 8, RGBA, lossless=True),
    "BMP alpha": by_opencv(RGBA, ".bmp"),
    "GIF transparent": encoded(PALETTE, "GIF", transparency=3),
    "JPEG and a video": encoded(SMOOTH, "JPEG") + bytes(9000),
}
UNREADABLE = {
    "CMYK colors": encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "CMYK colors, which": encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "TIFF transparency": encoded(RGBA, "TIFF"),
    "a transparent gray value": encoded(GRAY, "PNG", transparency=int(GRAY[0, 0])),
    "has pixels of type float32; convert it to 8 bits": encoded(RANDOM.random((9, 9)).astype(np.float32), "TIFF"),
    "not an image that OpenCV can read": b"words",
    "is not an image that": encoded(SMOOTH, "PNG")[:-100],
    "is an empty file": b"",
    "is a truncated JPEG": encoded(SMOOTH, "JPEG")[:-300],
}


@pytest.mark.parametrize("name", READABLE)
def test_the_pixels_are_those_of_pillow(name: str) -> None:
    content = READABLE[name]
    found, expected = READER.decode(content, name), decode_image(content, name)
    np.testing.assert_array_equal(found.image, expected.image)
    assert found.image.flags.c_contiguous
    if "JPEG" not in name:
        assert sorted(size_of(content) or ()) == sorted(found.image.shape[:2])


@pytest.mark.parametrize("message", UNREADABLE)
def test_what_cannot_be_read_is_named(message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        READER.decode(UNREADABLE[message], "x.tif")
    assert str(raised.value).startswith("x.tif: ")
    assert "\n" not in str(raised.value)


def test_every_alpha_over_white() -> None:
    shade, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    image = np.stack([shade, shade, shade, alpha], 2)
    expected = Image.alpha_composite(Image.new("RGBA", (256, 256), "white"), Image.fromarray(image)).convert("RGB")
    np.testing.assert_array_equal(over_white(image), np.asarray(expected))


@pytest.mark.parametrize(
    "name", ["PNG RGB", "TIFF RGB", "BMP RGB", "GIF RGB", "WEBP RGB", "WEBP alpha", "WEBP turned 3"]
)
def test_large_images_are_refused_before_they_are_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(DataError, match="x: has 21 x 13 pixels, more than the limit"):
        READER.decode(READABLE[name], "x", limits=Limits(13 * 21 - 1))


@pytest.mark.parametrize("name", READABLE)
def test_a_file_cut_off_anywhere_is_one_line_or_an_image(name: str) -> None:
    content = READABLE[name]
    for end in range(1, len(content), max(1, len(content) // 12)):
        with contextlib.suppress(DataError):
            assert READER.decode(content[:end], "x").image.ndim == 3


def test_reading_from_disk(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(READABLE["PNG turned 6"])
    assert READER.read(tmp_path / "a.png", None).whole == (21, 13)
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        READER.read(tmp_path / "b.png", None)
