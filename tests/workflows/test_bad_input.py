"""Invalid input is a one-line error with exit code 2 and no traceback."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools import finetune_words
from tldet import checkpoint
from tldet.cli.main import main
from tldet.config import find, read_config
from tldet.workflows.training.request import TransferOptions

Change = Callable[[dict[str, Any]], None]


def message(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line of a command that ends with exit code 2."""
    code = main(arguments)
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert code == 2, err
    assert len(lines) == 1, err
    assert err.rstrip().splitlines()[-1] == lines[0], "nothing comes after the error"
    assert "Traceback" not in err
    return lines[0]


def finetune(data: Path, out: Path, *more: str) -> list[str]:
    return finetune_words(data, out, "--steps", "2", *more)


@pytest.fixture
def folder(digits: Path, tmp_path: Path) -> Path:
    """A data set of one's own to spoil."""
    shutil.copytree(digits, tmp_path / "data")
    return tmp_path / "data"


def spoil(folder: Path, change: Change) -> Path:
    path = folder / "train" / "_annotations.coco.json"
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))
    return path


def test_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    line = message(capsys, finetune(tmp_path / "empty", tmp_path / "o"))
    assert "contains no COCO JSON" in line
    assert "annotations/*.json" in line
    assert "no such folder" in message(capsys, finetune(tmp_path / "nowhere", tmp_path / "o"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ('{"images": [{"id": 1, "file_name": "a.jp', "is cut off at line 1"),
        ("[1, 2]", "not in COCO's layout"),
        ('{"images": [], "annotations": [], "categories": []}', "has no images"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "file_name"),
    ],
)
def test_json_empty_or_cut_off(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, expected: str
) -> None:
    path = folder / "train" / "_annotations.coco.json"
    path.write_text(content)
    arguments = finetune(folder, tmp_path / "o", "--train", str(path), "--val", str(folder / "valid" / path.name))
    line = message(capsys, arguments)
    assert expected in line
    assert str(path) in line


def set_box(box: list[float]) -> Change:
    return lambda whole: whole["annotations"][3].update(bbox=box)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w["annotations"][3].update(category_id=77), "annotation id {id} has unknown category_id 77"),
        (lambda w: w["annotations"][3].update(image_id=99999), "annotation id {id} has unknown image_id 99999"),
        (set_box([5, 5, -4, 10]), "annotation id {id} has bbox"),
        (set_box([5, float("nan"), 4, 10]), "annotation id {id} has bbox"),
        (set_box([5, 5, 4]), "annotation id {id} has bbox [5.0, 5.0, 4.0]; it must be four numbers"),
        (lambda w: w["annotations"][3].update(bbox="5 5 4 4"), "bbox"),
        (lambda w: w["images"][1].update(id=w["images"][0]["id"]), "occurs more than once"),
        (lambda w: w["images"][0].update(file_name="gone.jpg"), "gone.jpg"),
        (lambda w: w["images"][0].update(width=99, height=55), "99 x 55"),
    ],
)
def test_wrong_annotations(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, expected: str
) -> None:
    path = spoil(folder, change)
    number = json.loads(path.read_text())["annotations"][3]["id"]
    line = message(capsys, finetune(folder, tmp_path / "o", "--cfg-options", "data.loader.batch_size=8"))
    assert expected.format(id=number) in line
    assert str(folder) in line


def test_boxes_without_extent_are_left_out_counted_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoil(folder, set_box([5, 5, 0, 10]))
    number = json.loads(path.read_text())["annotations"][3]["id"]
    assert main(finetune(folder, tmp_path / "o")) == 0
    assert f"1 box of zero extent left out (annotation {number})" in capsys.readouterr().err


def test_a_broken_image_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = sorted((folder / "train").glob("*.jpg"))[2]
    victim.write_bytes(victim.read_bytes()[:900])
    line = message(capsys, finetune(folder, tmp_path / "o", "--cfg-options", "data.loader.batch_size=16"))
    assert str(victim) in line
    assert "truncated" in line


def test_configs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", str(run / "config.py"), "--work-dir", str(tmp_path / "w"), "--cfg-options"]
    line = message(capsys, [*given, "optimizer.learning_rate=1"])
    assert "optimizer.learning_rate" in line
    assert "lr" in line
    assert "model.head.num_clases" in message(capsys, [*given, "model.head.num_clases=1"])
    assert "must have the form a.b=value" in message(capsys, [*given, "nonsense"])
    evil = tmp_path / "evil.py"
    evil.write_text(f"import os\nos.system('touch {tmp_path / 'ran'}')\n")
    assert "not code" in message(capsys, ["train", str(evil)])
    assert not (tmp_path / "ran").exists()
    line = message(capsys, ["train", "retinanet/retinanet_r50_1x"])
    assert "no config or recipe 'retinanet/retinanet_r50_1x'; nearest: retinanet" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_base_ = {recipe!r}\nclass_match = 3", "class_match: must be a section (a dict), not 3 (in {path})"),
        ("_base_ = {recipe!r}\ntraining = 3", "training: must be a section (a dict), not 3 (in {path})"),
        ("_base_ = {recipe!r}\nschedule = 3", "schedule: must be a section (a dict), not 3 (in {path})"),
        ("model = 3", "--model {path}: is not a recipe of a detector (no model.head)"),
    ],
)
def test_recipes_that_cannot_be_filled(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text.format(recipe=str(find("retinanet_lite0"))))
    given = ["finetune", "--data", str(digits), "--out", str(tmp_path / "o"), "--model", str(path)]
    assert expected.format(path=path) in message(capsys, [*given, "--fold-names", "case"])


def test_half_a_recipe(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "_base_/models/faster_rcnn_r50_fpn"
    line = message(capsys, ["finetune", "--data", str(digits), "--out", str(tmp_path / "o"), "--model", name])
    assert f"--model {name}: is not a recipe of a detector (no schedule)" in line
    line = message(capsys, ["study", "data", "--data", str(digits), "--out", str(tmp_path / "s"), "--model", name])
    assert "is not a recipe of a detector (no schedule)" in line


def test_a_section_of_another_kind_is_found_before_it_is_written_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(read_config("faster_rcnn/faster_rcnn_r50_fpn_1x_coco").dump() + "class_match = 3\n")
    line = message(capsys, ["train", str(path), "--work-dir", str(tmp_path / "w"), "--fold-names", "case"])
    assert f"class_match: must be a dict, not 3 (in {path})" in line


def test_a_section_of_none_is_written_into_as_an_empty_one() -> None:
    config: dict[str, Any] = {"class_match": None, "freeze": {"layers": ["neck"]}}
    config = TransferOptions(fold_names=("case",), gradual=0.5).written(config)
    assert config == {"class_match": {"fold": ["case"]}, "freeze": {"layers": ["neck"], "gradual": 0.5}}


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_that_would_run_code(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], plain: bool
) -> None:
    bad = tmp_path / "bad.pt"
    content = {"format": "tldet", "version": 1, "model": Evil(tmp_path / "ran")}
    if plain:
        bad.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, bad)
    for arguments in (["test", str(bad)], ["predict", str(bad), str(digits)]):
        assert str(bad) in message(capsys, arguments)
    assert not (tmp_path / "ran").exists()


def test_wrong_checkpoints(run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, other)
    assert "is not a tldet checkpoint" in message(capsys, ["test", str(other)])
    cut = tmp_path / "cut.pt"
    cut.write_bytes((run / "best.pt").read_bytes()[:100_000])
    assert "or cut off" in message(capsys, ["predict", str(cut), str(digits)])
    assert "no such file" in message(capsys, ["test", str(tmp_path / "none.pt")])
    torn = torch.load(run / "best.pt", weights_only=True)
    name = next(iter(torn["model"]))
    for part in ("model", "ema"):
        if torn.get(part):
            torn[part][name] = torch.zeros(1)
    torch.save(torn, cut)
    assert "do not fit" in message(capsys, ["test", str(cut)])


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("data", 3, "data: must be a section (a dict), not 3"),
        ("data.test.annotations", 5, "data.test.annotations: must be str"),
        ("data.test.transforms", 5, "data.test.transforms: must be"),
        ("data.test.zzz", 5, "data.test.zzz: unknown key"),
        ("data.test", [5], "data.test: must be a dict, not [5]"),
        ("data.loader.workers", "2", "data.loader.workers: must be int"),
        ("data.loader", 7, "data.loader: must be a dict, not 7"),
        ("evaluation", {"type": "x"}, "evaluation.type: must be one of 'bbox', 'segm', not 'x'"),
    ],
)
def test_a_checkpoint_with_a_malformed_config(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, value: Any, expected: str
) -> None:
    state = checkpoint.load_checkpoint(run / "best.pt")
    *above, key = part.split(".")
    node = state["config"]
    for name in above:
        node = node[name]
    node[key] = value
    checkpoint.save(tmp_path / "a.pt", {**state, "training": None})
    assert expected in message(capsys, ["test", str(tmp_path / "a.pt")])


def test_folders_that_cannot_be_written(
    digits: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "out"
    assert str(inside) in message(capsys, finetune(digits, inside))
    assert str(inside) in message(capsys, ["train", str(run / "config.py"), "--work-dir", str(inside)])
    image = str(next((digits / "test").glob("*.jpg")))
    assert str(inside) in message(capsys, ["predict", str(run / "best.pt"), image, "--json", str(inside / "r.json")])
    assert str(inside) in message(capsys, ["test", str(run / "best.pt"), "--json", str(inside / "r.json")])


def test_evaluate(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = str(digits / "test" / "_annotations.coco.json")
    bad = tmp_path / "dt.json"
    bad.write_text('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": NaN}]')
    assert str(bad) in message(capsys, ["evaluate", "--gt", truth, "--dt", str(bad)])
    assert "nowhere.json" in message(capsys, ["evaluate", "--gt", "nowhere.json", "--dt", str(bad)])


def test_names(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, near in (
        ("faster_rcn", "faster_rcnn_"),
        ("nosuch", ""),
        ("Faster-RCNN_R50", "faster_rcnn_r50"),
    ):
        line = message(capsys, ["finetune", "--data", str(digits), "--out", str(tmp_path / "o"), "--model", name])
        assert f"no config or recipe {name!r}; nearest: {near}" in line
        assert line.partition("nearest: ")[2].count(",") == 2, "three names"
    assert "resnet9999" in message(capsys, finetune(digits, tmp_path / "o", "--backbone", "resnet9999"))


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, digits: Path, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tldet.workflows.training.finetune.choose_for", broken)
    with pytest.raises(ZeroDivisionError):
        main(finetune(digits, tmp_path / "o"))


def test_a_wrong_best_metric_is_an_error_before_training(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = message(capsys, finetune(digits, tmp_path / "o", "--cfg-options", "training.best_metric=APP"))
    assert "training.best_metric 'APP' is none of AP, AP50" in line
    assert not (tmp_path / "o" / "log.jsonl").exists()


def test_a_value_of_a_step_out_of_range_is_one_line(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = message(capsys, finetune(digits, tmp_path / "o", "--cfg-options", "data.train.transforms.1.p=7"))
    assert "data.train.transforms.1.p must be at least 0 and at most 1, not 7" in line


def test_resume_takes_no_other_arguments(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "config.py").read_text()
    resume = ["finetune", "--out", str(run), "--resume"]
    line = message(capsys, [*resume, "--epochs", "3", "--seed", "0", "--scratch", "--data", "somewhere"])
    assert "other arguments: --data somewhere (was " in line
    assert "), --epochs 3 (was not given), --scratch (was not given). " in line
    assert "--cfg-options" in line
    assert "--model faster_rcnn_lite0 (was retinanet_lite0)" in message(
        capsys, [*resume, "--model", "faster_rcnn_lite0"]
    )
    assert "unknown key" in message(capsys, [*resume, "--cfg-options", "optimizer.rate=1"])
    assert "another model" in message(capsys, [*resume, "--cfg-options", "model.neck.out_channels=64"])
    assert (run / "config.py").read_text() == before, "options that do not work are not kept"


def test_resume_keeps_the_options_it_trained_with(run: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(run, tmp_path / "run")
    first = read_config(mine / "config.py")
    first_groups = checkpoint.load_checkpoint(mine / "step_00000006.pt")["training"]["optimizer"]["param_groups"]
    lr = first["optimizer"]["lr"] / 2
    options = [f"optimizer.lr={lr}", "schedule.steps=8"]
    assert main(["finetune", "--no-report", "--out", str(mine), "--resume", "--cfg-options", *options]) == 0
    groups = checkpoint.load_checkpoint(mine / "step_00000008.pt")["training"]["optimizer"]["param_groups"]
    assert [g["initial_lr"] for g in groups] == pytest.approx([g["initial_lr"] / 2 for g in first_groups])
    second = read_config(mine / "config.py")
    assert (second["optimizer"]["lr"], second["schedule"]["steps"]) == (lr, 8)


def test_initial_weights_exclude_each_other(
    digits: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = finetune(digits, tmp_path / "o", "--init-from", str(run / "best.pt"), "--scratch")
    assert "--scratch and --init-from cannot be combined" in message(capsys, given)
    assert "--seed must be at least 0, not -1" in message(capsys, finetune(digits, tmp_path / "o", "--seed", "-1"))


def test_folders_of_data(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = folder / "train" / "_annotations.coco.json"
    missing = tmp_path / "missing"
    assert f"{missing}: no such folder" in message(capsys, finetune(missing, tmp_path / "o", "--train", str(train)))
    (tmp_path / "file").write_text("")
    single = folder / "train"
    (single / "folder.json").mkdir()  # a folder is no JSON
    line = message(capsys, finetune(single, tmp_path / "file" / "o"))
    assert f"{tmp_path / 'file' / 'o'}: cannot be created" in line
    assert "choose another" in line
    (single / "instances_train.json").symlink_to(tmp_path / "gone.json")
    line = message(capsys, finetune(single, tmp_path / "o"))
    assert "instances_train.json: is a link to a missing file" in line


def test_bad_images_are_listed_before_step_1_or_skipped(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [sorted((folder / part).glob("*.jpg"))[2] for part in ("train", "train", "valid")]
    bad[1] = sorted((folder / "train").glob("*.jpg"))[4]
    for path in bad:
        path.write_bytes(path.read_bytes()[:900])
    assert main(finetune(folder, tmp_path / "o")) == 2
    err = capsys.readouterr().err
    assert all(str(path) in err for path in bad)
    assert "2 of 16 images cannot be used" in err
    assert main(finetune(folder, tmp_path / "o", "--on-bad-image", "skip")) == 0
    err = capsys.readouterr().err
    assert all(str(path) in err for path in bad)
    assert "2 of 16 images skipped" in err
    assert "1 of 6 images skipped" in err
    checkpoint, data = str(tmp_path / "o" / "best.pt"), str(folder / "valid" / "_annotations.coco.json")
    assert main(["test", checkpoint, "--data", data]) == 0, "as in training"
    assert "1 of 6 images skipped" in capsys.readouterr().err
    assert main(["test", checkpoint, "--data", data, "--on-bad-image", "error"]) == 2


def test_the_validation_json_is_not_trained_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "train" / "_annotations.coco.json"
    content = path.read_text()
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    line = message(capsys, finetune(folder, tmp_path / "o"))
    assert f"{path}: is a Git LFS pointer" in line
    path.write_bytes(content.encode("utf-16"))
    assert main(finetune(folder, tmp_path / "o")) == 0
    assert f"train: {path}, images in {folder / 'train'}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["finetune", "merge"])
def test_paths_of_another_machine(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for part in ("train", "valid", "test"):
        path = folder / part / "_annotations.coco.json"
        whole = json.loads(path.read_text())
        for image in whole["images"]:
            image["file_name"] = f"C:\\Users\\Ann\\my%20data\\{image['file_name'].upper()}"
        path.write_text(json.dumps(whole))
    twin = tmp_path / "twin"
    shutil.copytree(folder, twin)
    merging = ["merge", str(folder), str(twin), "--out", str(tmp_path / "o")]
    assert main(finetune(folder, tmp_path / "o") if command == "finetune" else merging) == 0
    err = capsys.readouterr().err
    assert "backslashes read as slashes" in err
    assert "C:/Users/Ann/my%20data/ dropped, letter case ignored" in err
    assert f"images in {folder / 'valid'}" in err
