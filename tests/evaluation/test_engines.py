"""The two engines agree to the last bit on whatever is drawn."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tldet.evaluation.coco import evaluate_files

# few distinct values: many ties of scores, IoU exactly at thresholds, areas exactly at 32**2
SIDES = st.sampled_from([0, 1, 8, 16, 31.5, 32, 33, 64, 96, 200])
SCORES = st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 0.9, 1.0])
BOXES = st.tuples(SIDES, SIDES, SIDES, SIDES).map(list)
IMAGES = [(12, 200, 300), (5, 300, 200), (2**40, 64, 64)]
CATEGORIES = [90, 0, 7]


def polygon(box: list[float]) -> list[list[float]]:
    x, y, width, height = box
    return [[x, y, x + width, y, x + width + 1.3, y + height + 0.7, x, y + height]]


def record(image: tuple[int, int, int], category: int, box: list[float]) -> dict[str, Any]:
    return {"image_id": image[0], "category_id": category, "bbox": box, "segmentation": polygon(box)}


RECORDS = st.builds(record, st.sampled_from(IMAGES), st.sampled_from(CATEGORIES), BOXES)
ANNOTATIONS = st.lists(st.tuples(RECORDS, st.booleans(), st.sampled_from([None, 100, 1024, 9216, 20000])), max_size=8)
DETECTIONS = st.lists(st.tuples(RECORDS, SCORES), max_size=12)


@settings(max_examples=60, deadline=None)
@given(ANNOTATIONS, DETECTIONS, st.sampled_from(["bbox", "segm"]), st.booleans(), st.booleans())
def test_engines_agree(annotations: Any, detections: Any, type: Any, boxed: bool, agnostic: bool) -> None:
    gt = {
        "images": [{"id": key, "height": height, "width": width} for key, height, width in IMAGES],
        "categories": [{"id": key, "name": f"class {key}"} for key in CATEGORIES],
        "annotations": [
            {**what, "id": number, "iscrowd": int(crowd), "area": area}
            for number, (what, crowd, area) in enumerate(annotations)
        ],
    }
    dt = [{**what, "score": value} for what, value in detections]
    for found in () if boxed else dt:
        del found["bbox"]
    fast, slow = (evaluate_files(gt, dt, type=type, engine=e, agnostic=agnostic) for e in ("fast", "pycocotools"))
    assert fast.to_dict() == slow.to_dict()
    assert fast.per_class_ap50 == slow.per_class_ap50
