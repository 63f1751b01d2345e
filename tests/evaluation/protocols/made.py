"""A dataset with the keys of LVIS and of Pascal VOC, and detections on it; equal on every machine."""

from __future__ import annotations

import random
from typing import Any

Coco = dict[str, Any]


def federated(images: int = 8, classes: int = 9, most: int = 420) -> tuple[Coco, list[Coco]]:
    """Return annotations and detections: ties of scores, ignored objects, up to ``most`` detections on an image."""
    draw = random.Random(7).random  # the one generator whose numbers Python guarantees

    def below(count: int) -> int:
        return int(draw() * count)

    categories = [{"id": 3 * k + 2, "name": f"c{k}", "frequency": "rcf"[k % 3]} for k in range(classes)]
    ids = [one["id"] for one in categories]
    entries: list[Coco] = []
    annotations: list[Coco] = []
    detections: list[Coco] = []
    for image in range(images):
        order = sorted(ids, key=lambda _: draw())
        lists = {"neg_category_ids": order[4:6], "not_exhaustive_category_ids": [k for k in ids if draw() < 0.25]}
        entries.append({"id": image + 10, "file_name": f"{image}.jpg", "width": 400, "height": 300, **lists})
        boxes = []
        for key in order[: below(4)]:
            for _ in range(1 + below(3)):
                box = [
                    20.0 * below(8),
                    20.0 * below(6),
                    (12.0, 32.0, 60.0, 100.0)[below(4)],
                    (20.0, 32.0, 96.0)[below(3)],
                ]
                flags = {"ignore": 1} if draw() < 0.15 else {"difficult": 0}
                number = len(annotations) + 1
                one = {"id": number, "image_id": image + 10, "category_id": key, "bbox": box, "area": box[2] * box[3]}
                annotations.append({**one, "iscrowd": 0, **flags})
                boxes.append((box, key))
        for _ in range(most if image == 2 else below(50)):
            if boxes and draw() < 0.5:
                box, key = boxes[below(len(boxes))]
                box = [value + (0, 0, 3, 8)[below(4)] for value in box]
                key = key if draw() < 0.8 else ids[below(classes)]
            else:
                box, key = [3.0 * below(80), 3.0 * below(60), 5.0 + below(90), 5.0 + below(90)], ids[below(classes)]
            detections.append({"image_id": image + 10, "category_id": key, "bbox": box, "score": round(draw(), 2)})
    return {"images": entries, "categories": categories, "annotations": annotations}, detections
