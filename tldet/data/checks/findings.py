"""Findings about a dataset: one value class, and the table of codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


class Repair(NamedTuple):
    """A determined change of one record of a COCO JSON.

    Attributes:
        section: ``images``, ``annotations`` or ``categories``.
        row: position of the record in the file.
        values: keys to set; None removes the record.
    """

    section: str
    row: int
    values: Mapping[str, Any] | None


@dataclass(frozen=True)
class Finding:
    """One problem of a dataset.

    Attributes:
        code: kind of problem, a key of :data:`CODES`.
        severity: ``error`` stops training or makes its result wrong, ``warning`` probably harms it, ``info`` is a fact.
        file: the annotation file.
        message: the problem in one line.
        annotation: id in a COCO JSON; in other formats the element of the file.
        image: the image file.
        box: x0, y0, x1, y1 in pixels.
        fix: what to do about it, or what ``--fix`` does.
        others: number of further records with the problem, if it is reported once.
        related: file of another image, such as that of a copy.
        score: rank of a probable label error; higher is more certain.
        repairs: changes of the file that solve the problem; empty if these are not determined.
    """

    code: str
    severity: Severity
    file: str
    message: str
    annotation: int | str | None = None
    image: str | None = None
    box: Corners | None = None
    fix: str = ""
    others: int = 0
    related: str | None = None
    score: float | None = None
    repairs: tuple[Repair, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the values for a JSON file; ``fixable`` is True if the change of the file is determined."""
        shown = {key: value for key, value in vars(self).items() if key != "repairs"}
        return {**shown, "fixable": bool(self.repairs)}


CODES: Mapping[str, tuple[Severity, str]] = {
    # files and records
    "file-unreadable": ("error", "annotations cannot be read"),
    "no-images": ("error", "no images"),
    "no-categories": ("error", "no categories"),
    "no-annotations": ("warning", "no annotations"),
    "record-invalid": ("error", "record or field of a wrong type"),
    "record-changed": ("info", "left out or changed by the reader of the format"),
    "image-id-repeated": ("error", "image id occurs more than once"),
    "category-id-repeated": ("error", "category id occurs more than once"),
    "annotation-id-repeated": ("warning", "annotation id occurs more than once"),
    "annotation-id-missing": ("warning", "annotation without a usable id"),
    "annotation-id-zero": ("info", "annotation id 0"),
    "image-unknown": ("error", "annotation of an unknown image"),
    "category-unknown": ("error", "annotation of an unknown category"),
    "labeled-unknown": ("error", "labeled_category_ids names an unknown category"),
    "image-name-missing": ("error", "image without a file name"),
    "image-name-changed": ("info", "file name differs from the name on disk"),
    "image-size-missing": ("error", "image without width and height"),
    "image-repeated": ("warning", "image file listed more than once"),
    # categories
    "category-name-missing": ("error", "category without a name"),
    "category-name-repeated": ("error", "category name occurs more than once"),
    "category-name-case": ("warning", "category names differ only by letter case or blanks"),
    "category-name-blank": ("warning", "category name with surrounding blanks"),
    "category-id-negative": ("error", "negative category id"),
    "category-unused": ("info", "category without objects"),
    "category-placeholder": ("info", "unused entry of the supercategory"),
    "category-differs": ("error", "category id with another name in another split"),
    # image files
    "images-not-found": ("error", "image folder not found"),
    "image-missing": ("error", "image file missing"),
    "image-unreadable": ("error", "image cannot be decoded"),
    "image-truncated": ("error", "image file cut off"),
    "image-size": ("error", "image of another size than stated"),
    "image-rotated": ("error", "boxes in coordinates before the EXIF rotation"),
    "image-exif": ("info", "image with an EXIF rotation, boxes upright"),
    "image-unlisted": ("info", "image file without an entry"),
    # boxes
    "box-missing": ("error", "annotation without a box"),
    "box-invalid": ("error", "box that is not four numbers"),
    "box-not-finite": ("error", "box with NaN or infinity"),
    "box-negative": ("error", "box of negative width or height"),
    "box-zero": ("warning", "box without extent"),
    "box-outside": ("warning", "box outside its image"),
    "box-over-border": ("warning", "box extends over the image border"),
    "box-normalized": ("error", "box in fractions of the image size"),
    "box-corners": ("error", "boxes are corners instead of x, y, width, height"),
    "box-derived": ("info", "missing box derived from the mask"),
    "box-covers-image": ("info", "box covers the image"),
    "box-repeated": ("warning", "object annotated twice"),
    "box-two-classes": ("warning", "one box with two classes"),
    "area-mismatch": ("info", "area fits neither box nor mask"),
    # masks and crowd regions
    "mask-invalid": ("error", "mask that is neither polygons nor run lengths of its image"),
    "mask-degenerate": ("warning", "polygon of fewer than three points"),
    "mask-empty": ("warning", "mask without pixels"),
    "mask-box": ("warning", "mask and box do not fit"),
    "mask-partial": ("info", "only some objects have masks"),
    "crowd-polygon": ("info", "crowd region with polygons"),
    "crowd-only": ("warning", "all objects are crowd regions"),
    # images that occur twice
    "image-identical": ("warning", "identical images in one split"),
    "image-similar": ("warning", "nearly identical images in one split"),
    "leak-identical": ("error", "identical images in two splits"),
    "leak-similar": ("error", "nearly identical images in two splits"),
    # statistics
    "class-rare": ("info", "class with few objects"),
    "class-imbalance": ("info", "classes of very different frequency"),
    "class-not-in-train": ("warning", "class without training objects"),
    "class-not-in-val": ("warning", "class without objects to evaluate on"),
    "image-empty": ("info", "images without objects"),
    "object-small": ("info", "objects too small for the input size"),
    "objects-many": ("info", "more objects on an image than evaluation counts"),
    "anchors": ("info", "objects that no anchor fits"),
    # probable label errors, with a detector
    "label-missing": ("warning", "confident prediction without a label"),
    "label-spurious": ("warning", "label without a prediction"),
    "label-class": ("warning", "prediction of another class"),
    "label-loose": ("warning", "box that fits the prediction badly"),
}


def worst(findings: Iterable[Finding]) -> Severity | None:
    """Return the highest severity; None without findings."""
    found = {finding.severity for finding in findings}
    return next((severity for severity in reversed(SEVERITIES) if severity in found), None)


def reaches(findings: Iterable[Finding], least: Severity) -> bool:
    """Return True if a finding is at least as severe as ``least``."""
    return any(SEVERITIES.index(finding.severity) >= SEVERITIES.index(least) for finding in findings)
