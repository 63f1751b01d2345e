"""Writer of Pascal VOC: ``Annotations``, ``JPEGImages`` and ``ImageSets/Main/SPLIT.txt``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from tldet.data.formats.records import ImageRecord, Shape
from tldet.data.formats.registry import VocBoxes
from tldet.data.formats.voc import BOXES_TAG, CORNERS
from tldet.data.formats.writers.layout import Splits, Written, image_names
from tldet.system.output import write_text

_SMALLEST = 1  # pixels; equal corners of an inclusive box are read as a box without extent


def write_voc(splits: Splits, out: Path, boxes: VocBoxes) -> Written:
    """Write a dataset.

    Args:
        splits: images of the dataset by split.
        out: output folder.
        boxes: meaning of the corners; "auto" writes those of the boxes ("continuous"), without loss.

    Raises:
        OutputError: a file cannot be written.
    """
    written, taken = Written(), set[str]()
    for split, images in splits.items():
        names = image_names(images, written, taken, flat=True)
        for image, name in zip(images, names, strict=True):
            written.images.append((image.path, out / "JPEGImages" / name))
            text = _xml(image, name, written, inclusive=boxes == "inclusive")
            write_text((out / "Annotations" / name).with_suffix(".xml"), text)
        if split is not None:
            stems = "".join(f"{PurePosixPath(name).stem}\n" for name in names)
            write_text(out / "ImageSets" / "Main" / f"{split}.txt", stems)
    return written


def _xml(image: ImageRecord, name: str, written: Written, *, inclusive: bool) -> str:
    root = ElementTree.Element("annotation")
    assert image.size is not None
    height, width = image.size
    for tag, text in (("folder", "JPEGImages"), ("filename", name), (BOXES_TAG, _meaning(inclusive))):
        ElementTree.SubElement(root, tag).text = text
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for shape in image.shapes:
        _add(root, image, shape, written, inclusive=inclusive)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _meaning(inclusive: bool) -> str:
    return "inclusive" if inclusive else "continuous"


def _add(root: ElementTree.Element, image: ImageRecord, shape: Shape, written: Written, *, inclusive: bool) -> None:
    """Add one object, unless Pascal VOC cannot hold it."""
    who, tally = image.who(shape), written.tally
    assert shape.box is not None
    x0, y0, x1, y1 = shape.box
    if shape.crowd:
        tally.add(who, "crowd region", "dropped: Pascal VOC has none")
        return
    if inclusive and min(x1 - x0, y1 - y0) <= _SMALLEST:
        tally.add(who, "box", "of a pixel or less dropped: inclusive corners cannot hold it", "boxes")
        return
    if shape.polygons or shape.rle is not None:
        tally.add(who, "mask", "dropped, the box is kept")
    written.boxes += 1
    node = ElementTree.SubElement(root, "object")
    difficult = "1" if shape.difficult else "0"
    for tag, text in (("name", shape.label), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", difficult)):
        ElementTree.SubElement(node, tag).text = text
    box = ElementTree.SubElement(node, "bndbox")
    first = 1 if inclusive else 0
    for tag, value in zip(CORNERS, (x0 + first, y0 + first, x1, y1), strict=True):
        ElementTree.SubElement(box, tag).text = str(int(value)) if value == int(value) else repr(float(value))
