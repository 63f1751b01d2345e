"""Damage to sound annotations: changes that can be undone exactly, and others that cannot."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

Values = dict[str, Any]
NAN = float("nan")


def damaged(whole: Values, seed: int = 0) -> tuple[Values, dict[str, list[int]]]:
    """Return damaged annotations, and the ids of the annotations and images that each kind of damage has changed."""
    values = copy.deepcopy(whole)
    random = np.random.default_rng(seed)
    rows = random.permutation(len(values["annotations"]))
    sizes = {image["id"]: (image["width"], image["height"]) for image in values["images"]}
    done: dict[str, list[int]] = {}

    def take(kind: str, count: int, fits: Any = lambda record: True) -> list[Values]:
        nonlocal rows
        fitting = [row for row in rows.tolist() if fits(values["annotations"][row])][:count]
        rows = np.array([row for row in rows.tolist() if row not in set(fitting)])
        found = [values["annotations"][row] for row in fitting]
        done[kind] = [record["id"] for record in found]
        return found

    for record in take("width negative", 20, lambda one: one["bbox"][0] - one["bbox"][2] < -2):
        record["bbox"][2] *= -1
    for record in take("right corner", 20, lambda one: sum(one["bbox"][::2]) + one["bbox"][2] > 642):
        record["bbox"] = [sum(record["bbox"][::2]), record["bbox"][1], -record["bbox"][2], record["bbox"][3]]
    for record in take("width NaN", 20):
        record["bbox"][2] = NAN
    for record in take("text", 20):
        record["bbox"] = [str(number) for number in record["bbox"]]
    for record in take("id as text", 20):
        record["image_id"] = str(record["image_id"])
    for record in take("fractions", 40):
        width, height = sizes[record["image_id"]]
        record["bbox"] = [a / b for a, b in zip(record["bbox"], (width, height, width, height), strict=True)]
    for record in take("copied", 20):
        values["annotations"].append({**copy.deepcopy(record), "id": record["id"] + 100_000})
    images = random.permutation(len(values["images"]))
    far = {one["image_id"] for one in whole["annotations"] if one["bbox"][1] + one["bbox"][3] > 300}
    wide = {one["image_id"] for one in whole["annotations"] if one["bbox"][0] + one["bbox"][2] > 482}
    shrunk = [int(n) for n in images if values["images"][n]["id"] in far & wide][:10]
    for number in shrunk[:5]:
        values["images"][number].update(width=320, height=240)
    for number in shrunk[5:]:
        values["images"][number].update(width=480, height=640)
    done["sizes"] = [values["images"][number]["id"] for number in shrunk]
    for record in take("missing box", 10):
        record["bbox"] = None
    for record in take("unknown image", 10):
        record["image_id"] = 10**6
    for record in take("unknown class", 10):
        record["category_id"] = 99
    for record in take("zero", 10):
        record["bbox"][2] = 0
    return values, done


UNDECIDED = ("missing box", "unknown image", "unknown class", "zero")
CODES = {"missing box": "box-missing", "unknown image": "image-unknown", "unknown class": "category-unknown"}
CODES |= {"zero": "box-zero"}
