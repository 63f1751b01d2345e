"""Findings about a dataset: one value class, and the table of codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


class Repair(NamedTuple):
    """An unambiguous correction of one record of a COCO JSON.

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
        severity: ``error`` stops training or makes its result wrong, ``warning`` probably makes the detector worse,
            ``info`` is for information.
        file: the annotation file.
        message: the problem in one line.
        annotation: id in a COCO JSON; in other formats the element of the file.
        image: the image file.
        box: x0, y0, x1, y1 in pixels.
        fix: what to do about it, or what ``--fix`` does.
        others: number of further records with the same problem, if it is reported once for all.
        related: file of another image, such as the duplicate of this one.
        score: score by which probable label errors are sorted; higher is more certain.
        repairs: corrections that solve the problem; empty if there is no unambiguous one.
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
        """Return the values for a JSON file; ``fixable`` is True if ``--fix`` repairs the problem."""
        shown = {key: value for key, value in vars(self).items() if key != "repairs"}
        return {**shown, "fixable": bool(self.repairs)}


CODES: Mapping[str, tuple[Severity, str]] = {
    # files and records
    "file-unreadable": ("error", "annotations cannot be read"),
    "no-images": ("error", "no images"),
    "no-categories": ("error", "no categories"),
    "no-annotations": ("warning", "no annotations"),
    "record-invalid": ("error", "invalid record or field"),
    "record-changed": ("info", "annotation skipped or changed on reading"),
    "image-id-repeated": ("error", "image id occurs more than once"),
    "category-id-repeated": ("error", "category id occurs more than once"),
    "annotation-id-repeated": ("warning", "annotation id occurs more than once"),
    "annotation-id-missing": ("warning", "annotation with a missing or invalid id"),
    "annotation-id-zero": ("info", "annotation id 0"),
    "image-unknown": ("error", "annotation of an unknown image"),
    "category-unknown": ("error", "annotation of an unknown category"),
    "labeled-unknown": ("error", "labeled_category_ids contains an unknown category"),
    "image-name-missing": ("error", "image without a file name"),
    "image-name-changed": ("info", "file name differs from the name on disk"),
    "image-size-missing": ("error", "image without width and height"),
    "image-repeated": ("warning", "image file listed more than once"),
    # categories
    "category-name-missing": ("error", "category without a name"),
    "category-name-repeated": ("error", "category name occurs more than once"),
    "category-name-case": ("warning", "similar category names"),
    "category-name-blank": ("warning", "category name with leading or trailing spaces"),
    "category-id-negative": ("error", "negative category id"),
    "category-unused": ("info", "category without objects"),
    "category-placeholder": ("info", "unused placeholder category"),
    "category-differs": ("error", "category id with different names in two splits"),
    # image files
    "images-not-found": ("error", "image folder not found"),
    "image-missing": ("error", "image file missing"),
    "image-unreadable": ("error", "image cannot be decoded"),
    "image-truncated": ("error", "truncated image file"),
    "image-size": ("error", "image size differs from the annotations"),
    "image-rotated": ("error", "boxes refer to the image before its EXIF rotation"),
    "image-exif": ("info", "image with EXIF rotation and upright boxes"),
    "image-unlisted": ("info", "image file that is not listed in the annotations"),
    # boxes
    "box-missing": ("error", "annotation without a box"),
    "box-invalid": ("error", "box that is not four numbers"),
    "box-not-finite": ("error", "box with NaN or infinity"),
    "box-negative": ("error", "box with negative width or height"),
    "box-zero": ("warning", "box with zero width or height"),
    "box-outside": ("warning", "box outside its image"),
    "box-over-border": ("warning", "box extends beyond the image border"),
    "box-normalized": ("error", "normalized box (fractions of the image size)"),
    "box-corners": ("error", "boxes are x0, y0, x1, y1 instead of x, y, width, height"),
    "box-derived": ("info", "missing box derived from the mask"),
    "box-covers-image": ("info", "box covers the image"),
    "box-repeated": ("warning", "object annotated twice"),
    "box-two-classes": ("warning", "same box annotated with two classes"),
    "area-mismatch": ("info", "area matches neither box nor mask"),
    # masks and crowd regions
    "mask-invalid": ("error", "mask that is neither polygons nor an RLE of its image"),
    "mask-degenerate": ("warning", "polygon with fewer than three points"),
    "mask-empty": ("warning", "mask without pixels"),
    "mask-box": ("warning", "mask and box do not match"),
    "mask-partial": ("info", "only some objects have masks"),
    "crowd-polygon": ("info", "crowd region with polygons"),
    "crowd-only": ("warning", "all objects are crowd regions"),
    # duplicate images
    "image-identical": ("warning", "identical images in one split"),
    "image-similar": ("warning", "nearly identical images in one split"),
    "leak-identical": ("error", "identical images in two splits"),
    "leak-similar": ("error", "nearly identical images in two splits"),
    # statistics
    "class-rare": ("info", "class with few objects"),
    "class-imbalance": ("info", "large class imbalance"),
    "class-not-in-train": ("warning", "class without objects in the training split"),
    "class-not-in-val": ("warning", "class without objects in the validation or test split"),
    "image-empty": ("info", "images without objects"),
    "object-small": ("info", "objects too small for the input size"),
    "objects-many": ("info", "more objects in an image than COCO evaluates"),
    "anchors": ("info", "objects that no anchor matches"),
    # probable label errors, found with a detector
    "label-missing": ("warning", "confident detection without a label"),
    "label-spurious": ("warning", "label without a detection"),
    "label-class": ("warning", "label and detection have different classes"),
    "label-loose": ("warning", "box of the label differs from the detection"),
}


def worst(findings: Iterable[Finding]) -> Severity | None:
    """Return the highest severity; None without findings."""
    found = {finding.severity for finding in findings}
    return next((severity for severity in reversed(SEVERITIES) if severity in found), None)


def reaches(findings: Iterable[Finding], least: Severity) -> bool:
    """Return True if a finding is at least as severe as ``least``."""
    return any(SEVERITIES.index(finding.severity) >= SEVERITIES.index(least) for finding in findings)
