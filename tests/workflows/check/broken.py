"""Small datasets, each broken in one way, with the finding and the exit code they must give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 64
Values = dict[str, Any]


class Case(NamedTuple):
    """A broken dataset.

    Attributes:
        name: of the test.
        code: the finding it must give.
        exit: the exit code.
        change: changes the values of the annotation file or the files of the folder; what it returns is written in
            place of the values: other values, or text.
    """

    name: str
    code: str
    exit: int
    change: Callable[[Values, Path], Any]


def photo(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A random image with structure at all scales."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (3, 6, 12):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray((total / 3).astype(np.uint8))


def base(folder: Path) -> Values:
    """Write the images of a sound dataset, and return its annotations."""
    (folder / "images").mkdir(parents=True)
    for number in range(1, 5):
        photo(number).save(folder / "images" / f"{number}.jpg", quality=92)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(1, 5)]
    annotations = []
    for number in range(12):
        x, y, width, height = 4 + 5 * (number // 4), 6 + 3 * (number // 4), 20 + number, 18 + number
        annotations.append(
            {
                "id": number + 1,
                "image_id": 1 + number % 4,
                "category_id": 1 + number % 2,
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": 0,
                "segmentation": [],
            }
        )
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(folder: Path, change: Callable[[Values, Path], Any] = lambda values, folder: None) -> Path:
    """Write a dataset, changed."""
    values = base(folder)
    changed = change(values, folder)
    content = values if changed is None else changed
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path = folder / "instances.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def put(section: str, row: int, **fields: Any) -> Callable[[Values, Path], None]:
    """Set fields of a record."""

    def change(values: Values, folder: Path) -> None:
        values[section][row].update(fields)

    return change


def drop(section: str, row: int, key: str) -> Callable[[Values, Path], None]:
    """Remove a field of a record."""

    def change(values: Values, folder: Path) -> None:
        del values[section][row][key]

    return change


def every(section: str, **functions: Callable[[Values], Any]) -> Callable[[Values, Path], None]:
    """Set fields of all records to the results of functions of the record."""

    def change(values: Values, folder: Path) -> None:
        for record in values[section]:
            record.update({key: function(record) for key, function in functions.items()})

    return change


def add(section: str, **fields: Any) -> Callable[[Values, Path], None]:
    """Append a record like the last one, with other fields."""

    def change(values: Values, folder: Path) -> None:
        values[section].append({**values[section][-1], **fields})

    return change


def box(row: int, *numbers: Any) -> Callable[[Values, Path], None]:
    return put("annotations", row, bbox=list(numbers))


def mask(row: int, segmentation: Any, **fields: Any) -> Callable[[Values, Path], None]:
    return put("annotations", row, segmentation=segmentation, **fields)


def file(function: Callable[[Path], Any]) -> Callable[[Values, Path], None]:
    """Change the first image file."""

    def change(values: Values, folder: Path) -> None:
        function(folder / "images" / "1.jpg")

    return change


def save(image: Image.Image, **options: Any) -> Callable[[Path], Any]:
    return lambda path: image.save(path, **options)


def turned(orientation: int, size: tuple[int, int], boxes: list[list[float]]) -> Callable[[Values, Path], None]:
    """Give the first image an EXIF orientation, a stated (width, height), and its three objects other boxes."""

    def change(values: Values, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        photo(1).save(folder / "images" / "1.jpg", exif=exif)
        values["images"][0].update(width=size[0], height=size[1])
        rows = [record for record in values["annotations"] if record["image_id"] == 1]
        for record, one in zip(rows, boxes, strict=True):
            record.update(bbox=one, area=one[2] * one[3])

    return change


def copied(name: str, **options: Any) -> Callable[[Values, Path], None]:
    """Save the first image again as the second one: resized, mirrored, or as it is."""

    def change(values: Values, folder: Path) -> None:
        first, second = folder / "images" / "1.jpg", folder / "images" / "2.jpg"
        if not options:
            second.write_bytes(first.read_bytes())
            return
        image = Image.open(first).resize(options.get("size", (WIDTH, HEIGHT)))
        if options.get("mirror"):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image.save(second, quality=options.get("quality", 60))
        values["images"][1].update(width=image.width, height=image.height)

    return change


def splits(change: Callable[[Values, Values, Path], None]) -> Callable[[Values, Path], Any]:
    """Write a training split beside the file, which becomes the validation split."""

    def changed(values: Values, folder: Path) -> Values:
        val = json.loads(json.dumps(values))
        for record, number in zip(val["images"], range(5, 9), strict=True):
            photo(number).save(folder / "images" / f"{number}.jpg", quality=92)
            record.update(id=number, file_name=f"{number}.jpg")
        for record in val["annotations"]:
            record.update(id=record["id"] + 100, image_id=record["image_id"] + 4)
        change(values, val, folder)
        (folder / "val.json").write_text(json.dumps(val))
        (folder / "train.json").write_text(json.dumps(values))
        return "remove"

    return changed


def copy_into_val(train: Values, val: Values, folder: Path) -> None:
    image = Image.open(folder / "images" / "1.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((48, 32))
    image.save(folder / "images" / "5.jpg", quality=60)
    val["images"][0].update(width=48, height=32)
    for record in val["annotations"]:
        if record["image_id"] == 5:
            record.update(bbox=[2, 2, 20, 20], area=400)
            record["bbox"][0] += record["id"] % 7


def same_bytes_in_val(train: Values, val: Values, folder: Path) -> None:
    (folder / "images" / "5.jpg").write_bytes((folder / "images" / "1.jpg").read_bytes())


def same_file_in_val(train: Values, val: Values, folder: Path) -> None:
    val["images"][0]["file_name"] = "1.jpg"


def only_dogs_in(part: str) -> Callable[[Values, Values, Path], None]:
    def change(train: Values, val: Values, folder: Path) -> None:
        for record in (train if part == "train" else val)["annotations"]:
            record["category_id"] = 2

    return change


def other_names_in_val(train: Values, val: Values, folder: Path) -> None:
    val["categories"] = [{"id": 1, "name": "horse"}, {"id": 2, "name": "dog"}]


def corners(record: Values) -> list[float]:
    x, y, width, height = record["bbox"]
    return [x, y, x + width, y + height]


def fractions(record: Values) -> list[float]:
    x, y, width, height = record["bbox"]
    return [x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT]


def centers(record: Values) -> list[float]:
    x, y, width, height = fractions(record)
    return [x + width / 2, y + height / 2, width, height]


def many(count: int) -> Callable[[Values, Path], None]:
    def change(values: Values, folder: Path) -> None:
        for number in range(count):
            spot = [number % 30 * 3, number // 30 * 6, 2.5, 5]
            values["annotations"].append(
                {"id": 100 + number, "image_id": 1, "category_id": 1, "bbox": spot, "area": 12.5, "iscrowd": 0}
            )

    return change


def crowd_only(values: Values, folder: Path) -> None:
    for record in values["annotations"]:
        record["iscrowd"] = 1


def no_objects(values: Values, folder: Path) -> None:
    values["annotations"] = []


def rotated_names(values: Values, folder: Path) -> None:
    for record in values["images"]:
        record["file_name"] = f"C:\\data\\{record['file_name']}"


def unlisted(values: Values, folder: Path) -> None:
    photo(9).save(folder / "images" / "extra.jpg")


def thin_polygon(values: Values, folder: Path) -> None:
    values["annotations"][0]["segmentation"] = [[4, 6, 14, 16, 24, 26]]


def tall(values: Values, folder: Path) -> None:
    for record in values["annotations"]:
        record.update(bbox=[3 * (record["id"] % 12), 0, 2, 64], area=128)


def rare(values: Values, folder: Path) -> None:
    for record in values["annotations"][1:]:
        record["category_id"] = 2


def imbalanced(values: Values, folder: Path) -> None:
    rare(values, folder)
    many(120)(values, folder)
    for record in values["annotations"][12:]:
        record["category_id"] = 2


def empty_images(values: Values, folder: Path) -> None:
    values["annotations"] = [record for record in values["annotations"] if record["image_id"] == 1]


def duplicated_key(values: Values, folder: Path) -> str:
    return json.dumps(values)[:-1] + ', "images": []}'


def moved(name: str) -> Callable[[Values, Path], None]:
    """Rename the image folder, so that it is not found."""

    def change(values: Values, folder: Path) -> None:
        for path in (folder / "images").iterdir():
            path.unlink()

    return change


def text(function: Callable[[str], str | bytes]) -> Callable[[Values, Path], Any]:
    return lambda values, folder: function(json.dumps(values))


NAN = float("nan")
RLE = {"size": [HEIGHT, WIDTH], "counts": [6 + 4 * HEIGHT, 20, HEIGHT * WIDTH - 26 - 4 * HEIGHT]}
UPRIGHT = [[4, 6, 20, 18], [9, 40, 24, 22], [14, 70, 28, 24]]  # in 64 x 96
STORED = [[4, 6, 20, 18], [40, 9, 24, 22], [66, 12, 28, 26]]  # in 96 x 64

CASES: tuple[Case, ...] = (
    Case("empty file", "file-unreadable", 1, text(lambda _: "")),
    Case("zero bytes", "file-unreadable", 1, text(lambda _: b"\0" * 20)),
    Case("cut off", "file-unreadable", 1, text(lambda whole: whole[: len(whole) // 2])),
    Case("no JSON", "file-unreadable", 1, text(lambda _: "images: 3")),
    Case("a web page", "file-unreadable", 1, text(lambda _: "<!DOCTYPE html><html></html>")),
    Case("a Git LFS pointer", "file-unreadable", 1, text(lambda _: "version https://git-lfs.github.com/spec/v1\n")),
    Case("Latin-1", "file-unreadable", 1, text(lambda whole: whole.replace("cat", "caf\xe9").encode("latin-1"))),
    Case("deep nesting", "file-unreadable", 1, text(lambda _: "[" * 100_000)),
    Case("gzip", "file-unreadable", 1, text(lambda _: b"\x1f\x8b\x08\0\0\0\0\0")),
    Case("a list", "record-invalid", 1, lambda values, _: values["annotations"]),
    Case("a key twice", "record-invalid", 1, duplicated_key),
    Case("images not a list", "record-invalid", 1, lambda values, _: {**values, "images": {"a": 1}}),
    Case("no images", "no-images", 1, lambda values, _: {**values, "images": []}),
    Case("no images key", "no-images", 1, lambda values, _: {k: v for k, v in values.items() if k != "images"}),
    Case("no categories", "no-categories", 1, lambda values, _: {**values, "categories": []}),
    Case("no categories key", "no-categories", 1, lambda v, _: {k: one for k, one in v.items() if k != "categories"}),
    Case("no annotations key", "no-annotations", 0, lambda v, _: {k: x for k, x in v.items() if k != "annotations"}),
    Case("no annotations", "no-annotations", 0, no_objects),
    Case("annotations null", "record-invalid", 1, lambda values, _: {**values, "annotations": None}),
    Case("annotation is a number", "record-invalid", 1, lambda v, _: {**v, "annotations": [*v["annotations"], 7]}),
    Case("image is text", "record-invalid", 1, lambda v, _: {**v, "images": [*v["images"], "5.jpg"]}),
    Case("image without id", "record-invalid", 1, drop("images", 3, "id")),
    Case("image id is text", "record-invalid", 1, put("images", 0, id="1")),
    Case("image id is a word", "record-invalid", 1, put("images", 3, id="four")),
    Case("image id is huge", "record-invalid", 1, put("images", 3, id=10**30)),
    Case("file name is a number", "record-invalid", 1, put("images", 3, file_name=7)),
    Case("width is text", "record-invalid", 1, put("images", 0, width="96")),
    Case("width is negative", "record-invalid", 1, put("images", 0, width=-96)),
    Case("category without id", "record-invalid", 1, drop("categories", 1, "id")),
    Case("annotation without image_id", "record-invalid", 1, drop("annotations", 2, "image_id")),
    Case("annotation without category_id", "record-invalid", 1, drop("annotations", 2, "category_id")),
    Case("category_id is text", "record-invalid", 1, put("annotations", 2, category_id="1")),
    Case("area is a word", "record-invalid", 1, put("annotations", 2, area="large")),
    Case("image id twice", "image-id-repeated", 1, add("images")),
    Case("image id of two files", "image-id-repeated", 1, put("images", 3, id=3)),
    Case("category id twice", "category-id-repeated", 1, put("categories", 1, id=1)),
    Case("annotation id twice", "annotation-id-repeated", 0, put("annotations", 1, id=1)),
    Case("annotation without id", "annotation-id-missing", 0, drop("annotations", 1, "id")),
    Case("annotation id is text", "annotation-id-missing", 0, put("annotations", 1, id="b")),
    Case("annotation id 0", "annotation-id-zero", 0, put("annotations", 0, id=0)),
    Case("unknown image", "image-unknown", 1, put("annotations", 3, image_id=99)),
    Case("unknown category", "category-unknown", 1, put("annotations", 3, category_id=0)),
    Case("unknown labeled category", "labeled-unknown", 1, put("images", 0, labeled_category_ids=[1, 9])),
    Case("image without name", "image-name-missing", 1, drop("images", 0, "file_name")),
    Case("image without size", "image-size-missing", 1, drop("images", 0, "width")),
    Case("image of size 0", "image-size-missing", 1, put("images", 0, width=0, height=0)),
    Case("one file twice", "image-repeated", 0, put("images", 1, file_name="1.jpg")),
    Case("names of another machine", "image-name-changed", 0, rotated_names),
    Case("category without name", "category-name-missing", 1, drop("categories", 1, "name")),
    Case("category with blank name", "category-name-missing", 1, put("categories", 1, name=" ")),
    Case("category name twice", "category-name-repeated", 1, put("categories", 1, name="cat")),
    Case("names differ by case", "category-name-case", 0, put("categories", 1, name="Cat")),
    Case("names differ by hyphen", "category-name-case", 0, put("categories", 1, name="c-at")),
    Case("name with blanks", "category-name-blank", 0, put("categories", 1, name="dog ")),
    Case("negative category id", "category-id-negative", 1, every("categories", id=lambda one: one["id"] - 2)),
    Case("unused category", "category-unused", 0, add("categories", id=3, name="cow")),
    Case("background category", "category-placeholder", 0, add("categories", id=0, name="background")),
    Case(
        "supercategory entry",
        "category-placeholder",
        0,
        lambda values, _: {
            **values,
            "categories": [
                {"id": 0, "name": "pets", "supercategory": "none"},
                *({**one, "supercategory": "pets"} for one in values["categories"]),
            ],
        },
    ),
    Case("all images missing", "images-not-found", 1, moved("elsewhere")),
    Case("image missing", "image-missing", 1, file(Path.unlink)),
    Case("image is text", "image-unreadable", 1, file(lambda path: path.write_text("no image"))),
    Case("image is empty", "image-unreadable", 1, file(lambda path: path.write_bytes(b""))),
    Case("image cut off", "image-truncated", 1, file(lambda path: path.write_bytes(path.read_bytes()[:900]))),
    Case("size swapped", "image-size", 1, put("images", 0, width=HEIGHT, height=WIDTH)),
    Case("size of a smaller file", "image-size", 1, file(save(photo(1, 48, 32)))),
    Case("stored coordinates", "image-rotated", 1, turned(6, (WIDTH, HEIGHT), STORED)),
    Case("upright coordinates, stored size", "image-size", 1, turned(8, (WIDTH, HEIGHT), UPRIGHT)),
    Case("upright coordinates and size", "image-exif", 0, turned(6, (HEIGHT, WIDTH), UPRIGHT)),
    Case("upside down", "image-exif", 0, turned(3, (WIDTH, HEIGHT), STORED)),
    Case("file without entry", "image-unlisted", 0, unlisted),
    Case("no bbox", "box-missing", 1, drop("annotations", 4, "bbox")),
    Case("bbox null", "box-missing", 1, put("annotations", 4, bbox=None)),
    Case("bbox of three numbers", "box-invalid", 1, box(4, 1, 2, 3)),
    Case("bbox of words", "box-invalid", 1, box(4, "a", "b", "c", "d")),
    Case("bbox is an object", "box-invalid", 1, put("annotations", 4, bbox={"x": 1})),
    Case("bbox with text", "box-invalid", 1, box(4, "9", "9", "24", "22")),
    Case("bbox with NaN", "box-not-finite", 1, box(4, NAN, 9, 24, 22)),
    Case("bbox with infinity", "box-not-finite", 1, box(4, 9, 9, float("inf"), 22)),
    Case("bbox with a huge number", "box-not-finite", 1, box(4, 9, 9, 1e200, 22)),
    Case("bbox with an endless number", "box-not-finite", 1, box(4, 9, 9, 10**400, 22)),
    Case("negative width", "box-negative", 1, box(4, 9, 9, -24, 22)),
    Case("negative height, corner right", "box-negative", 1, box(4, 9, 60, 24, -22)),
    Case("no width", "box-zero", 0, box(4, 9, 9, 0, 22)),
    Case("outside", "box-outside", 0, box(4, 200, 9, 24, 22)),
    Case("over the border", "box-over-border", 0, box(4, 80, 9, 24, 22)),
    Case("one box in fractions", "box-normalized", 1, box(4, 0.1, 0.2, 0.3, 0.4)),
    Case("all boxes in fractions", "box-normalized", 1, every("annotations", bbox=fractions)),
    Case("all boxes as centers in fractions", "box-normalized", 1, every("annotations", bbox=centers)),
    Case("all boxes as corners", "box-corners", 1, every("annotations", bbox=corners)),
    Case("covers the image", "box-covers-image", 0, box(4, 0, 0, WIDTH, HEIGHT)),
    Case("mask without a box", "box-derived", 0, mask(4, [[9, 9, 33, 9, 33, 31, 9, 31]], bbox=None)),
    Case("annotated twice", "box-repeated", 0, add("annotations", id=50)),
    Case("annotated twice, almost equal", "box-repeated", 0, add("annotations", id=50, bbox=[14, 12, 31.2, 29.4])),
    Case("two classes", "box-two-classes", 0, add("annotations", id=50, category_id=1)),
    Case("wrong area", "area-mismatch", 0, put("annotations", 4, area=5000)),
    Case("polygon of two points", "mask-degenerate", 0, mask(4, [[9, 9, 33, 9]])),
    Case("polygon of five numbers", "mask-invalid", 1, mask(4, [[9, 9, 33, 9, 20, 31, 4]])),
    Case("polygon with NaN", "mask-invalid", 1, mask(4, [[9, 9, 33, NAN, 20, 31]])),
    Case("polygon far away", "mask-invalid", 1, mask(4, [[0, 0, 1e12, 0, 1e12, 1e12]])),
    Case("polygon as text", "mask-invalid", 1, mask(4, "9 9 33 9 20 31")),
    Case("run lengths of another size", "mask-invalid", 1, mask(4, {"size": [10, 10], "counts": [0, 100]})),
    Case("run lengths too short", "mask-invalid", 1, mask(4, {"size": [HEIGHT, WIDTH], "counts": [0, 100]})),
    Case("mask without pixels", "mask-empty", 0, thin_polygon),
    Case("mask elsewhere", "mask-box", 0, mask(4, [[60, 40, 90, 40, 90, 60]])),
    Case("some masks", "mask-partial", 0, mask(4, [[9, 9, 33, 9, 33, 31, 9, 31]])),
    Case("crowd with polygons", "crowd-polygon", 0, mask(4, [[9, 9, 33, 9, 33, 31, 9, 31]], iscrowd=1)),
    Case("only crowd", "crowd-only", 0, crowd_only),
    Case("same image twice", "image-identical", 0, copied("2.jpg")),
    Case("mirrored copy", "image-similar", 0, copied("2.jpg", mirror=True)),
    Case("resized copy", "image-similar", 0, copied("2.jpg", size=(48, 32), quality=50)),
    Case("copy in two splits", "leak-similar", 1, splits(copy_into_val)),
    Case("same bytes in two splits", "leak-identical", 1, splits(same_bytes_in_val)),
    Case("same file in two splits", "leak-identical", 1, splits(same_file_in_val)),
    Case("class only evaluated", "class-not-in-train", 0, splits(only_dogs_in("train"))),
    Case("class not evaluated", "class-not-in-val", 0, splits(only_dogs_in("val"))),
    Case("other class names", "category-differs", 1, splits(other_names_in_val)),
    Case("rare class", "class-rare", 0, rare),
    Case("imbalance", "class-imbalance", 0, imbalanced),
    Case("empty images", "image-empty", 0, empty_images),
    Case("many objects", "objects-many", 0, many(120)),
    Case("tiny objects", "object-small", 0, box(4, 9, 9, 1, 1)),
    Case("tall objects", "anchors", 0, tall),
)
