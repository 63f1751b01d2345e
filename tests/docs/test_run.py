"""Cheap commands of the documentation run as they are written there, on generated data with the names used there."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests import forked
from tests.docs.pages import blocks

COMMANDS = {  # command -> files that it writes
    "tldet --version": (),
    "tldet check my_data": (),
    "tldet check my_data --html check.html --json check.json": ("check.html", "check.json"),
    "tldet check my_data/train.json --images images/ --fix fixed/train.json": (),
    "tldet split all.json --out split --val 0.2 --test 0.1": ("split/train.json", "split/val.json", "split/test.json"),
    "tldet split all.json --out split --group-by field:patient": ("split/train.json", "split/val.json"),
    "tldet split all.json --out folds --folds 5": ("folds/fold1/train.json", "folds/fold5/val.json"),
    "tldet evaluate --gt truth.json --dt results.json --type bbox": (),
    "tldet evaluate --gt truth.json --dt results.json --iou 0.5 --max-dets 1000 --classes person car": (),
    "tldet evaluate --gt truth.json --dt results.json --voc --per-image images.csv --json metrics.json": (
        "images.csv",
        "metrics.json",
    ),
    "tldet convert SRC --to coco --out D": ("D",),
    "tldet convert SRC --to yolo --out D --classes classes.txt": ("D/data.yaml",),
    "tldet convert SRC --to voc --out D --link": ("D",),
    "tldet merge red_cells.json white_cells.json --images red/ --images white/ --out merged": ("merged",),
    "tldet browse my_data --html my_data.html": ("my_data.html",),
    "tldet predict runs/mine/best.pt images/ 'more/*.jpg' --out drawn --json results.json": ("drawn", "results.json"),
    "tldet test runs/mine/best.pt --data other.json --images images/": (),
}
JSON_NAME = "_annotations.coco.json"


def shown_commands() -> set[str]:
    """Return the commands in the bash blocks of all pages, without their comments."""
    lines = [line for block in blocks("bash") for line in block.text.replace("\\\n", " ").splitlines()]
    return {" ".join(line.partition(" #")[0].split()) for line in lines}


def test_the_commands_are_those_that_are_shown() -> None:
    assert set(COMMANDS) <= shown_commands()
    assert len(COMMANDS) >= 15


def write(path: Path, whole: dict[str, Any], **lists: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**whole, **lists}))


@pytest.fixture(scope="module")
def names(digits: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documentation names."""
    folder = tmp_path_factory.mktemp("documentation")
    train, test = digits / "train", digits / "test"
    for name, source in {"my_data": digits, "SRC": train, "images": test, "red": train, "white": test}.items():
        shutil.copytree(source, folder / name)
    (folder / "runs" / "mine").mkdir(parents=True)
    shutil.copy(run / "best.pt", folder / "runs" / "mine")
    whole, evaluated = (json.loads((one / JSON_NAME).read_text()) for one in (train, test))
    (folder / "red" / JSON_NAME).rename(folder / "red_cells.json")
    (folder / "white" / JSON_NAME).rename(folder / "white_cells.json")
    (folder / "images" / JSON_NAME).rename(folder / "other.json")
    for image in whole["images"]:
        shutil.copy(train / image["file_name"], folder)
    patients = [{**image, "patient": f"p{number // 2}"} for number, image in enumerate(whole["images"])]
    write(folder / "all.json", whole, images=patients)
    two = [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    objects = [{**one, "category_id": 1 + one["category_id"] % 2} for one in evaluated["annotations"]]
    write(folder / "truth.json", evaluated, categories=two, annotations=objects)
    keys = ("image_id", "category_id", "bbox")
    (folder / "results.json").write_text(
        json.dumps([{key: one[key] for key in keys} | {"score": 0.9} for one in objects])
    )
    (folder / "classes.txt").write_text("".join(f"{one['name']}\n" for one in whole["categories"]))
    (folder / "more").mkdir()
    cv2.imwrite(str(folder / "more" / "a.jpg"), cv2.imread(str(test / evaluated["images"][0]["file_name"])))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command: str, names: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(names, folder)
    if "all.json" in command:
        for name in ("my_data", "SRC", "red"):  # the same images
            shutil.rmtree(folder / name)
    if "my_data/train.json" in command:
        (folder / "other.json").rename(folder / "my_data" / "train.json")
    if "results.json" in COMMANDS[command]:
        (folder / "results.json").unlink()
    done = forked.run(shlex.split(command), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert all((folder / name).exists() for name in COMMANDS[command])
