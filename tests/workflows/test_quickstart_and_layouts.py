"""From a folder to an evaluated detector, through the functions of the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.ops import box_convert, box_iou

from tldet import checkpoint
from tldet.cli.main import main
from tldet.config import read_config
from tldet.data.layouts import Layout
from tldet.data.settings import LoaderSettings
from tldet.data.split_paths import resolve_layout
from tldet.engine.logging import read_log
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.workflows.evaluate import evaluate
from tldet.workflows.models import test_size as model_size
from tldet.workflows.test import test as evaluate_checkpoint
from tldet.workflows.training.datasets import build_dataset
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.schema import EvalSettings
from tldet.workflows.training.train import train
from tldet.workflows.training.validation import Validation

NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def test_a_run_leaves_config_log_and_checkpoints(run: Path) -> None:
    assert {p.name for p in run.iterdir()} >= {"config.py", "log.jsonl", "best.pt", "step_00000006.pt"}
    records = read_log(run / "log.jsonl")
    assert [r["step"] for r in records if r["type"] == "train"] == [2, 4, 6]
    last = [r for r in records if r["type"] == "val"][-1]
    assert set(NUMBERS) <= set(last)
    assert {"val_loss", "val_loss_cls", "val_loss_bbox"} <= set(last)
    meta = checkpoint.load_checkpoint(run / "best.pt")["meta"]
    assert meta["class_names"] == [str(d) for d in range(10)]
    assert meta["weights_source"] == "package:efficientnet_lite0"


def test_the_written_config_trains_the_same_run(run: Path, tmp_path: Path) -> None:
    again = train(run / "config.py", work_dir=tmp_path / "again", report=False)
    assert again.train.step == 6
    assert "'batch_size': 2" in (run / "config.py").read_text(), "an option is part of it"
    ours, theirs = (
        checkpoint.load_checkpoint(run / "step_00000006.pt"),
        checkpoint.load_checkpoint(tmp_path / "again" / "step_00000006.pt"),
    )
    assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in ours["model"])


def test_test_and_evaluate_give_the_same_json(run: Path, digits: Path, tmp_path: Path) -> None:
    truth = digits / "test" / "_annotations.coco.json"
    result = evaluate_checkpoint(
        run / "best.pt", json=tmp_path / "t.json", results=tmp_path / "dt.json", engine="pycocotools"
    )
    scored = evaluate(truth, tmp_path / "dt.json", json=tmp_path / "e.json")
    reported, message = (json.loads((tmp_path / name).read_text()) for name in ("t.json", "e.json"))
    assert list(reported) == [*NUMBERS, "per_class"]
    assert reported == message
    assert result.numbers() == scored.numbers()
    given = evaluate_checkpoint(run / "best.pt", data=truth, images=digits / "test", device="cpu", precision="fp32")
    assert given.numbers() == result.numbers(), "the same images by --data"


@pytest.mark.parametrize(("flag", "alone"), [([], False), (["--nms-per-class"], False), (["--nms-agnostic"], True)])
def test_test_chooses_among_which_boxes_nms_works(run: Path, tmp_path: Path, flag: list[str], alone: bool) -> None:
    path = tmp_path / "found.json"
    assert main(["test", str(run / "best.pt"), "--device", "cpu", "--results", str(path), *flag]) == 0
    by_image: dict[int, list[list[float]]] = {}
    for record in json.loads(path.read_text()):
        by_image.setdefault(record["image_id"], []).append(record["bbox"])
    most = 0.0
    for boxes in by_image.values():
        corners = box_convert(torch.tensor(boxes), "xywh", "xyxy")
        most = max(most, float(box_iou(corners, corners).triu(1).max()))
    assert (most < 0.72) == alone, "boxes of two classes at one place"


def test_finetune_from_scratch_trains_all_layers(digits: Path, tmp_path: Path) -> None:
    outcome = finetune(digits, out=tmp_path / "out", model="retinanet_lite0", steps=1, scratch=True, report=False)
    config = checkpoint.load_checkpoint(tmp_path / "out" / "best.pt")["config"]
    assert config["model"]["backbone"]["weights"] is None
    assert config["model"]["backbone"]["frozen_stages"] == -1
    assert config["model"]["backbone"]["norm"] == "batch"
    assert outcome.train.step == 1


@pytest.mark.parametrize(
    "name",
    ["resnet18", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mobilenetv3_small_050", "vit_tiny_patch16_224"))],
)
def test_another_backbone_than_the_recipe(digits: Path, tmp_path: Path, name: str) -> None:
    finetune(
        digits, out=tmp_path / "out", model="faster_rcnn_lite0", backbone=name, steps=1, scratch=True, report=False
    )
    state = checkpoint.load_checkpoint(tmp_path / "out" / "best.pt")
    assert state["config"]["model"]["backbone"]["name"] == name
    assert evaluate_checkpoint(tmp_path / "out" / "best.pt").images == 6


def test_one_json_is_split(digits: Path, tmp_path: Path) -> None:
    split = digits / "train" / "_annotations.coco.json"
    finetune(out=tmp_path / "out", model="retinanet_lite0", steps=1, train=split, images=digits / "train", report=False)
    parts = [json.loads((tmp_path / "out" / "split" / f"{n}.json").read_text())["images"] for n in ("train", "val")]
    ids = [{image["id"] for image in part} for part in parts]
    assert [len(part) for part in ids] == [13, 3]
    assert not ids[0] & ids[1]


def coco(path: Path, folder_of_images: Path, name: str, count: int = 4) -> Path:
    """A COCO JSON and its (unreadable) images."""
    for folder in (path.parent, folder_of_images):
        folder.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": f"{name}{i}.jpg", "width": 8, "height": 8} for i in range(count)]
    for image in images:
        (folder_of_images / str(image["file_name"])).write_bytes(str(image["file_name"]).encode())
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16} for i in range(count)]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "c"}]}))
    return path


def parts(layout: Layout) -> list[tuple[Path, Path] | None]:
    found = (layout.train, layout.val, layout.test)
    return [(part.annotations, part.images) if part else None for part in found]


def test_images_serve_every_part_of_a_folder(tmp_path: Path) -> None:
    data, apart = tmp_path / "data", tmp_path / "apart" / "images"
    files = [coco(data / f"{part}.json", apart, part) for part in ("train", "val", "test")]
    with pytest.raises(DataError, match="use --images"):
        resolve_layout(data, None, None, None, tmp_path / "out", 0)
    assert parts(resolve_layout(data, None, None, apart, tmp_path / "out", 0)) == [(file, apart) for file in files]
    with pytest.raises(DataError, match=r"--images nowhere: no such folder"):
        resolve_layout(data, None, None, "nowhere", tmp_path / "out", 0)


def test_parts_that_no_option_names_come_from_the_folder(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    train, val, test = (coco(data / f"{part}.json", data / "images", part) for part in ("train", "val", "test"))
    mine = coco(data / "mine.json", data / "images", "mine")
    images = data / "images"
    layout = resolve_layout(data, mine, None, None, out, 0)
    assert parts(layout) == [(mine, images), (val, images), (test, images)]
    layout = resolve_layout(data, None, mine, None, out, 0)
    assert parts(layout) == [(train, images), (mine, images), (test, images)]
    assert parts(resolve_layout(data, val, None, None, out, 0))[1] == (test, images), "not what is trained on"
    assert parts(resolve_layout(data, train, test, None, out, 0))[2] is None
    train.write_text('{"images": [')  # a part that is not used may be broken, one that is may not
    assert parts(resolve_layout(data, mine, None, None, out, 0))[0] == (mine, images)
    val.write_text('{"images": [')
    with pytest.raises(DataError, match=r"val\.json: is cut off"):
        resolve_layout(data, mine, None, None, out, 0)
    assert not out.exists()


def test_a_folder_may_be_there_for_its_images(tmp_path: Path) -> None:
    mine = coco(tmp_path / "mine.json", tmp_path / "data", "mine")
    layout = resolve_layout(tmp_path / "data", mine, None, None, tmp_path / "out", 0)
    assert [part and part.images for part in (layout.train, layout.val, layout.test)] == [tmp_path / "data"] * 2 + [
        None
    ]
    assert layout.train.annotations == tmp_path / "out" / "split" / "train.json"


def test_relative_paths_are_looked_for_in_the_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, here = tmp_path / "data", tmp_path / "here"
    for folder in (data, here):
        coco(folder / "train.json", folder / "images", "a")
        coco(folder / "val.json", folder / "images", "a")
    coco(here / "own.json", here / "images", "a")
    monkeypatch.chdir(here)
    layout = resolve_layout("../data", "train.json", "val.json", "images", tmp_path / "out", 0)
    where = Path("../data/images")
    assert parts(layout) == [(Path("../data/train.json"), where), (Path("../data/val.json"), where), None]
    assert resolve_layout(data, "own.json", None, "images", tmp_path / "out", 0).train.annotations == Path("own.json")


def filled(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, **choices: Any) -> dict[str, Any]:
    """The config that a fine-tuning would train by."""
    with monkeypatch.context() as patched:
        patched.setattr("tldet.workflows.training.finetune.run_training", lambda used, *_, **__: used)
        return finetune(data, out=out, **choices, report=False).data  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("length", "milestones"),
    [({"steps": 200}, [180]), ({"minutes": 5.0}, [4.5]), ({"epochs": 36}, [32.4]), ({"epochs": 12}, [8, 11])],
)
def test_milestones_are_those_of_the_length(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: dict[str, Any], milestones: list[float]
) -> None:
    name = "faster_rcnn/faster_rcnn_r50_fpn_1x_coco"
    before = read_config(name)["schedule"]
    after = filled(monkeypatch, digits, tmp_path / "out", model=name, **length)["schedule"]
    kept = {key: value for key, value in before.items() if key not in ("epochs", "milestones")}
    assert after == {**kept, "milestones": milestones, **length}
    smooth = filled(monkeypatch, digits, tmp_path / "smooth", **length)["schedule"]
    assert smooth == {"warmup_steps": 20, "warmup_factor": 0.05, "policy": "cosine", **length}


def test_the_size_is_chosen_by_the_backbone_not_by_the_path(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lite0").mkdir()
    batches, rows = {}, {}
    for name in ("faster_rcnn_r50", "faster_rcnn_lite0"):
        path = tmp_path / "lite0" / f"{name[-3:]}.py"
        path.write_text(read_config(name).dump())
        shipped, mine = (
            filled(monkeypatch, digits, tmp_path / f"{path.stem}_{i}", model=str(model), steps=1)["data"]
            for i, model in enumerate((name, path))
        )
        assert mine == shipped
        batches[name] = mine["loader"]["batch_size"]
        rows[name] = model_size(read_config(path))
    assert batches == {"faster_rcnn_r50": 2, "faster_rcnn_lite0": 4} or torch.cuda.is_available()
    assert rows == {"faster_rcnn_r50": (800, 1088), "faster_rcnn_lite0": (320, 448)}


def test_validation_blames_the_model_for_its_own_detections(digits: Path) -> None:
    section = {"type": "CocoDataset", "annotations": str(digits / "valid" / "_annotations.coco.json")}
    section |= {"images": str(digits / "valid"), "transforms": []}
    validation = Validation(build_dataset(section, 0), LoaderSettings(), EvalSettings(), losses=False)

    def timed(y1: float, score: float) -> dict[str, float]:
        class Model(torch.nn.Linear):
            def predict(self, batch: Batch) -> list[Detections]:
                box, label = torch.tensor([[1.0, 1.0, 5.0, y1]]), torch.zeros(1, dtype=torch.int64)
                return [Detections(box, torch.tensor([score]), label) for _ in range(len(batch))]

        return validation(Model(1, 1))

    assert timed(5.0, 0.5).keys() >= set(NUMBERS)
    for y1, score in ((float("nan"), 0.5), (float("inf"), 0.5), (5.0, float("nan"))):
        with pytest.raises(TrainingError, match=r"detections on image \d+ are not finite: .*optimizer.lr"):
            timed(y1, score)


def test_starting_from_a_checkpoint_of_other_classes(run: Path, digits: Path, tmp_path: Path) -> None:
    truth = json.loads((digits / "train" / "_annotations.coco.json").read_text())
    chosen = [c for c in truth["categories"] if c["name"] in "37"]
    ids = {c["id"] for c in chosen}
    two = {**truth, "categories": chosen, "annotations": [a for a in truth["annotations"] if a["category_id"] in ids]}
    (tmp_path / "two.json").write_text(json.dumps(two))
    finetune(
        out=tmp_path / "out",
        model="retinanet_lite0",
        steps=1,
        train=tmp_path / "two.json",
        val=tmp_path / "two.json",
        images=digits / "train",
        init_from=run / "best.pt",
        cfg_options=["optimizer.lr=1e-12", "training.ema=None", "schedule.warmup_steps=0"],
        report=False,
    )
    old, new = checkpoint.load_checkpoint(run / "best.pt"), checkpoint.load_checkpoint(tmp_path / "out" / "best.pt")
    assert new["meta"]["class_names"] == ["3", "7"]
    before, after = old.get("ema") or old["model"], new["model"]
    counted = ("running_mean", "running_var", "num_batches_tracked")
    shared = [key for key in after if "cls_score" not in key and not key.endswith(counted)]
    assert len(shared) > 150
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in shared)
    new_rows = after["head.cls_score.weight"]
    assert before["head.cls_score.weight"].shape != new_rows.shape, "the layer that names classes starts new"


def test_resume_and_start_exclude_each_other(run: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="was started with package:efficientnet_lite0; leave --init-from out"):
        train(run / "config.py", work_dir=run, resume=True, init_from=run / "best.pt", report=False)
    with pytest.raises(TrainingError, match="nothing to resume"):
        finetune(out=tmp_path, resume=True, report=False)
    with pytest.raises(TrainingError, match="contains an earlier run"):
        finetune(run, out=run, steps=1, report=False)


def test_class_count_and_common_classes_are_checked_before_training(run: Path, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_classes: is 3 .*has 10 classes .*set it to 10"):
        train(run / "config.py", work_dir=tmp_path / "a", cfg_options=["model.head.num_classes=3"], report=False)
    truth = json.loads((digits / "valid" / "_annotations.coco.json").read_text())
    truth["categories"] = [{**c, "name": f"letter {c['name']}"} for c in truth["categories"]]
    (tmp_path / "other.json").write_text(json.dumps(truth))
    other = [f"data.val.annotations={tmp_path / 'other.json'}"]
    with pytest.raises(DataError, match="no class"):
        train(run / "config.py", work_dir=tmp_path / "b", cfg_options=other, report=False)
    with pytest.raises(DataError, match="no class"):
        evaluate_checkpoint(run / "best.pt", data=tmp_path / "other.json", images=digits / "valid")


def test_a_budget_of_minutes_is_fixed_once(digits: Path, tmp_path: Path) -> None:
    outcome = finetune(
        digits,
        out=tmp_path / "out",
        model="retinanet_lite0",
        minutes=0.15,
        cfg_options=["data.loader.batch_size=1"],
        report=False,
    )
    assert outcome.train.step >= 8
    assert checkpoint.load_checkpoint(tmp_path / "out" / "best.pt")["config"]["schedule"]["minutes"] == 0.15
