"""Pascal VOC: one XML per image, with corners in pixels.

VOC's own files count pixels from 1 and include both corners, so that a box is ``[xmin - 1, ymin - 1, xmax, ymax]``
("inclusive"; Everingham et al., VOC devkit). Many other tools write the corners of the box itself ("continuous").
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path, PurePosixPath

from tldet.data.formats.records import (
    Dataset,
    ImageRecord,
    Shape,
    class_names,
    finite_number,
    label_text,
    ordered_box,
    side,
)
from tldet.data.formats.registry import Format, ReadOptions, VocBoxes, register
from tldet.data.formats.tree import Tree
from tldet.data.formats.xml import Node, read_xml, root_tag
from tldet.data.image_formats import EXTENSIONS
from tldet.data.split_names import SPLIT_NAMES
from tldet.errors import DataError
from tldet.structures.image import Size
from tldet.system.inputs import is_file, read_file

CORNERS = ("xmin", "ymin", "xmax", "ymax")
BOXES_TAG = "boxes"  # element in files written by tldet that states the meaning of the corners
_MAX_BYTES = 1 << 26
_THREADS = 4


def _find(tree: Tree) -> list[Path]:
    """Return the XML files whose root is ``<annotation>``."""
    return tree.with_damaged({path: root_tag(tree.start(path)) for path in tree.annotations(".xml")}, "annotation")


def _read(tree: Tree, files: Sequence[Path], options: ReadOptions) -> Dataset:
    """Read one image per XML; ``ImageSets/Main/{train,val,test}.txt`` or the folders state the splits.

    Raises:
        DataError: an XML is damaged or lacks an element; the message names its line.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        roots = list(pool.map(lambda path: read_xml(path, _MAX_BYTES), files))
    found = Dataset("voc", tree.root, [], [])
    sets = _image_sets({path.parent.parent for path in files})
    for path, root in zip(files, roots, strict=True):
        if sets and not any(path.stem in names for names in sets.values()):
            found.tally.add(str(path), "image", "in no list of ImageSets/Main left out")
            continue
        if root.tag != "annotation":
            raise DataError(f"{path}: line {root.line}: the root is <{root.tag}>, not <annotation>")
        image = ImageRecord(_image(tree, path, root), path, "", _split(tree, path, sets), _size(root, path), [])
        image.shapes = [_shape(path, node) for node in root.all("object")]
        found.images.append(image)
    boxes, reason = _convention(found.images, roots, options.voc_boxes)
    if boxes == "inclusive":
        _from_inclusive(found.images)
    found.details.append(f"boxes {boxes} ({reason})")
    _count_difficult(found)
    found.classes = class_names(found.images)
    return found


def _image(tree: Tree, path: Path, root: Node) -> Path:
    """Return the image: by ``<filename>``, else by the name of the XML."""
    name = root.find("filename") or path.stem
    image = tree.find(name, path)
    if is_file(image):
        return image
    other = tree.find(path.stem, path)
    if is_file(other):
        return other
    return image if PurePosixPath(name).suffix.lower() in EXTENSIONS else image.with_name(f"{image.name}.jpg")


def _size(root: Node, path: Path) -> Size | None:
    node = root.first("size")
    if node is None:
        return None
    who = f"{path}: line {node.line}"
    width, height = (node.find(key) for key in ("width", "height"))
    if width == height == "0":  # some tools leave the size open
        return None
    return side(height, who, "<height>"), side(width, who, "<width>")


def _shape(path: Path, node: Node) -> Shape:
    who = f"{path}: line {node.line}"
    label = label_text(node.find("name"), who, "<name>")
    box = node.first("bndbox")
    if box is None:
        raise DataError(f"{who}: <object> {label!r} has no <bndbox>")
    who = f"{path}: line {box.line}"
    values = [finite_number(box.find(key), who, f"<{key}>") for key in CORNERS]
    corners = ordered_box(values, who, [f"<{key}>" for key in CORNERS])
    difficult = (node.find("difficult") or "0").lower() in ("1", "true")
    return Shape(label, f"line {node.line}", corners, difficult=difficult)


def _image_sets(folders: Collection[Path]) -> dict[str, set[str]]:
    """Return the names in ``train.txt``, ``val.txt`` and ``test.txt`` of ``ImageSets/Main``, by split."""
    found: dict[str, set[str]] = {}
    for folder in sorted(folders):
        for split, names in SPLIT_NAMES.items():
            for path in (folder / "ImageSets" / "Main" / f"{name}.txt" for name in names):
                if is_file(path):
                    lines = read_file(path, DataError).decode(errors="replace").splitlines()
                    found.setdefault(split, set()).update(line.split()[0] for line in lines if line.split())
    for one, other in combinations(found, 2):
        if both := sorted(found[one] & found[other]):
            raise DataError(f"{min(folders)}: ImageSets/Main lists {both[0]} in both {one}.txt and {other}.txt")
    return found


def _split(tree: Tree, path: Path, sets: Mapping[str, set[str]]) -> str | None:
    if sets:
        return next(split for split, names in sets.items() if path.stem in names)
    return tree.split(path.parent / "_")


def _convention(images: Sequence[ImageRecord], roots: Sequence[Node], chosen: VocBoxes) -> tuple[str, str]:
    """Return the meaning of the corners, and why."""
    if chosen != "auto":
        return chosen, "user-specified"
    stated = {root.find(BOXES_TAG) for root in roots} - {None}
    if stated & {"continuous", "inclusive"} and len(stated) == 1:
        return str(stated.pop()), "stated in the files"
    for image, box, shape in _boxes(images):
        if min(box) == 0 or any(value != int(value) for value in box):
            what = "0" if min(box) == 0 else "not a whole number"
            return "continuous", f"{image.source.name}, {shape.location}: a corner is {what}"
    return "inclusive", "Pascal VOC's definition; choose with --voc-boxes"


def _boxes(images: Sequence[ImageRecord]) -> Iterator[tuple[ImageRecord, tuple[float, ...], Shape]]:
    return ((image, shape.box, shape) for image in images for shape in image.shapes if shape.box is not None)


def _from_inclusive(images: Sequence[ImageRecord]) -> None:
    """Subtract 1 from the lower corners, except for boxes of equal corners, which have no extent."""
    for _, (x0, y0, x1, y1), shape in _boxes(images):
        shape.box = (x0 - (x1 > x0), y0 - (y1 > y0), x1, y1)


def _count_difficult(found: Dataset) -> None:
    for image in found.images:
        for shape in image.shapes:
            if shape.difficult:
                found.tally.add(image.who(shape), "object", "marked 'difficult' used like the others")


register(Format("voc", "Pascal VOC", _find, _read))
