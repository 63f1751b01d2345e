"""Take labels away from a COCO JSON: one half of the images keeps some classes, the other half the rest.

    python tests/halves.py TRAIN.json OUT.json RBC [MORE NAMES ...]

The images are dealt out at random, the same for the same file. Those of the first half keep the objects of the named
classes and list them (``labeled_category_ids``), those of the second half keep the objects of the others. The AP after
training on OUT.json and on TRAIN.json shows the effect of partly labeled images.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any


def halves(whole: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """``whole`` with each image labeled for one of two sets of classes."""
    every = [category["id"] for category in whole["categories"]]
    named = [category["id"] for category in whole["categories"] if category["name"] in names]
    parts = (named, [key for key in every if key not in named])
    if not all(parts) or len(named) != len(names):
        known = ", ".join(category["name"] for category in whole["categories"])
        raise SystemExit(f"name some, but not all, of {known}; not {', '.join(sorted(names))}")
    order = [image["id"] for image in whole["images"]]
    random.Random(0).shuffle(order)
    first = set(order[: len(order) // 2])
    kept = {key: parts[0 if key in first else 1] for key in order}
    return {
        **whole,
        "images": [{**image, "labeled_category_ids": kept[image["id"]]} for image in whole["images"]],
        "annotations": [a for a in whole["annotations"] if a["category_id"] in kept[a["image_id"]]],
    }


if __name__ == "__main__":
    source, out, *given = sys.argv[1:]
    made = halves(json.loads(Path(source).read_text(encoding="utf-8")), set(given))
    Path(out).write_text(json.dumps(made), encoding="utf-8")
