"""``python -m benchmarks.label_errors DATA.json --images DIR``: recall of planted label errors by rank.

Errors are planted in sound annotations: dropped objects, shifted boxes and wrong classes. The findings of ``tldet check
--cross-validate`` are ranked; the recall within the first n is compared with that of the same findings in random order.
"""

from __future__ import annotations

import copy
import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tldet.data.checks.findings import Finding
from tldet.workflows.check.check import check

KINDS = ("dropped", "shifted", "class")
_SHIFT = (0.35, 0.6)  # of the sides
_SAME = 0.5  # IoU from which a finding is at the place of a planted error
_RANDOM_ORDERS = 200


@dataclass(frozen=True)
class Planted:
    """A planted error: its kind, annotation, image and the original box (x0, y0, x1, y1)."""

    kind: str
    annotation: int
    image: str
    box: tuple[float, float, float, float]


def plant(whole: dict[str, Any], count: int, seed: int) -> tuple[dict[str, Any], list[Planted]]:
    """Return annotations with ``count`` errors of the three kinds in turn."""
    random = np.random.default_rng(seed)
    values, planted = copy.deepcopy(whole), list[Planted]()
    images = {image["id"]: image for image in values["images"]}
    rows = random.permutation(len(values["annotations"]))[:count]
    classes = [one["id"] for one in values["categories"]]
    for number, row in enumerate(rows.tolist()):
        record, kind = values["annotations"][row], KINDS[number % len(KINDS)]
        image, (x, y, width, height) = images[record["image_id"]], record["bbox"]
        planted.append(Planted(kind, record["id"], image["file_name"], (x, y, x + width, y + height)))
        if kind == "shifted":
            right, down = random.uniform(*_SHIFT, 2) * random.choice((-1, 1), 2) * (width, height)
            left, top = np.clip(x + right, 0, image["width"] - width), np.clip(y + down, 0, image["height"] - height)
            record["bbox"] = [round(float(left), 1), round(float(top), 1), width, height]
        elif kind == "class":
            record["category_id"] = int(random.choice([key for key in classes if key != record["category_id"]]))
    gone = {one.annotation for one in planted if one.kind == "dropped"}
    values["annotations"] = [one for one in values["annotations"] if one["id"] not in gone]
    return values, planted


def finds(finding: Finding, error: Planted) -> bool:
    """Return True if a finding points at a planted error."""
    if error.kind != "dropped" and finding.annotation == error.annotation:
        return True
    if finding.code != "label-missing" or finding.image != error.image or finding.box is None:
        return False
    return error.kind != "class" and _iou(finding.box, error.box) >= _SAME


def _iou(one: Sequence[float], two: Sequence[float]) -> float:
    sides = [max(0.0, min(one[i + 2], two[i + 2]) - max(one[i], two[i])) for i in (0, 1)]
    inside = sides[0] * sides[1]
    return inside / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)) - inside)


def first_ranks(findings: Sequence[Finding], planted: Sequence[Planted]) -> list[list[int]]:
    """Return for each planted error the ranks of the findings that point at it."""
    return [[rank for rank, one in enumerate(findings) if finds(one, error)] for error in planted]


def main(argv: Sequence[str] | None = None) -> None:
    """Plant errors, check, and print the recall by rank."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/label_errors"))
    parser.add_argument("--count", type=int, default=140)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    values, planted = plant(json.loads(args.data.read_text()), args.count, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "train.json"
    if not path.exists():  # a changed time would rebuild the folds
        path.write_text(json.dumps(values))
    report = check(
        path,
        images=args.images,
        cross_validate=args.folds,
        minutes=args.minutes,
        runs=args.out / "runs",
        score=0.3,
        fast=True,
        html=args.out / "check.html",
    )
    findings = [one for one in report.findings if one.score is not None]
    sys.stdout.write("\n".join(recall_table(findings, planted)) + "\n")


def recall_table(findings: Sequence[Finding], planted: Sequence[Planted]) -> list[str]:
    """Return lines with the recall within the first n findings, per kind and overall, and in random order."""
    ranks = first_ranks(findings, planted)
    random = np.random.default_rng(0)
    orders = [random.permutation(len(findings)) for _ in range(_RANDOM_ORDERS)]
    lines = [f"{len(findings)} findings, {len(planted)} planted errors"]
    lines.append("first n  " + "  ".join(f"{kind:>7}" for kind in (*KINDS, "all", "random")))
    for count in (35, 70, 105, 140, 210, 280, 420, 560):
        hit = [any(rank < count for rank in one) for one in ranks]
        shares = [np.mean([h for h, one in zip(hit, planted, strict=True) if one.kind == kind]) for kind in KINDS]
        drawn = np.mean([[any(order[rank] < count for rank in one) for one in ranks] for order in orders])
        lines.append(f"{count:>7}  " + "  ".join(f"{share:7.2f}" for share in (*shares, np.mean(hit), drawn)))
    return lines


if __name__ == "__main__":
    main()
