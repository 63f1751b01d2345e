"""A run is not resumed with other classes than it was trained on, and the advice in the error works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tldet import checkpoint
from tldet.cli.main import main
from tldet.data.digits import generate_crops
from tldet.errors import TrainingError
from tldet.transfer.restore import restore
from tldet.workflows.test import test as evaluate
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.pretrain import pretrain
from tldet.workflows.training.train import train

OPTIONS = ["data.loader.batch_size=2", "training.precision=fp32", "model.head.settings.score_thr=0.001"]
NAME = "mobilenetv3_small_050"


def swap_ids(truth: dict[str, Any]) -> None:
    """The same names under other ids: the order of the labels changes."""
    ids = [one["id"] for one in truth["categories"]]
    table = dict(zip(ids, reversed(ids), strict=True))
    for one in truth["categories"]:
        one["id"] = table[one["id"]]
    for one in truth["annotations"]:
        one["category_id"] = table[one["category_id"]]


def shift_ids(truth: dict[str, Any]) -> None:
    for one in truth["categories"]:
        one["id"] += 100
    for one in truth["annotations"]:
        one["category_id"] += 100


def rename(truth: dict[str, Any]) -> None:
    truth["categories"][0]["name"] = "zero"


def swap_names(truth: dict[str, Any]) -> None:
    first, second = truth["categories"][:2]
    first["name"], second["name"] = second["name"], first["name"]


def add(truth: dict[str, Any]) -> None:
    truth["categories"].append({"id": 77, "name": "eleven"})


def remove(truth: dict[str, Any]) -> None:
    gone = truth["categories"].pop()["id"]
    truth["annotations"] = [one for one in truth["annotations"] if one["category_id"] != gone]


CHANGES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (swap_ids, "order 0, 1, 2"),
    (swap_names, "order 0, 1, 2"),
    (shift_ids, "category ids "),
    (rename, "removed: 0, new: zero"),
    (add, "new: eleven"),
    (remove, "removed: 9"),
]


@pytest.fixture(scope="module")
def begun(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run on it."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(digits, folder / "data")
    finetune(folder / "data", out=folder / "run", model="retinanet_lite0", steps=2, cfg_options=OPTIONS, report=False)
    return folder


def change(folder: Path, how: Callable[[dict[str, Any]], None]) -> None:
    for split in ("train", "valid", "test"):
        path = folder / "data" / split / "_annotations.coco.json"
        truth = json.loads(path.read_text())
        how(truth)
        path.write_text(json.dumps(truth))


@pytest.mark.parametrize(("how", "message"), CHANGES)
def test_finetune_refuses(begun: Path, digits: Path, how: Callable[[dict[str, Any]], None], message: str) -> None:
    shutil.rmtree(begun / "data")
    shutil.copytree(digits, begun / "data")
    change(begun, how)
    kept = (begun / "run" / "config.py").read_bytes()
    for resume in (
        lambda: finetune(out=begun / "run", resume=True, cfg_options=["schedule.steps=4"], report=False),
        lambda: train(begun / "run" / "config.py", work_dir=begun / "run", resume=True, report=False),
    ):
        with pytest.raises(TrainingError) as refused:
            resume()
        assert f"({message}" in str(refused.value)
        assert "_annotations.coco.json: the classes have changed" in str(refused.value)
        assert f"--init-from {begun / 'run' / 'best.pt'}" in str(refused.value)
    assert (begun / "run" / "config.py").read_bytes() == kept
    assert not (begun / "run" / "step_00000004.pt").exists()


def more_objects(truth: dict[str, Any]) -> None:
    truth["annotations"].append({**truth["annotations"][0], "id": 10**6})


def test_changed_annotations_are_reported(begun: Path, digits: Path, caplog: pytest.LogCaptureFixture) -> None:
    for how, expected in ((lambda truth: None, []), (more_objects, ["training", "validation"])):
        shutil.rmtree(begun / "data")
        shutil.copytree(digits, begun / "data")
        change(begun, how)
        caplog.clear()
        finetune(out=begun / "run", resume=True, report=False)
        texts = [record.getMessage() for record in caplog.records if "has changed since" in record.getMessage()]
        assert [text.split()[1] for text in texts] == expected
        assert all(str(begun / "run") in text for text in texts)


@pytest.mark.parametrize("how", [swap_ids, add])
def test_the_advice_works(
    begun: Path, digits: Path, tmp_path: Path, how: Callable[[dict[str, Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each class has its own classifier weights again, whatever the order of the labels is now."""
    shutil.rmtree(begun / "data")
    shutil.copytree(digits, begun / "data")
    change(begun, how)
    command = f"finetune --data {begun / 'data'} --init-from {begun / 'run' / 'best.pt'} --out {tmp_path / 'new'} "
    assert main([*f"{command} --model retinanet_lite0 --steps 0 --cfg-options".split(), *OPTIONS]) == 0
    capsys.readouterr()
    old, new = (checkpoint.load_checkpoint(path / "best.pt") for path in (begun / "run", tmp_path / "new"))
    key = next(iter(restore(begun / "run" / "best.pt")[0].head.class_layers))  # type: ignore[call-overload]
    rows = []
    for state in (old, new):
        names = state["meta"]["class_names"]
        bias = (state["ema"] or state["model"])[f"head.{key}.bias"].reshape(-1, len(names))
        rows.append({name: bias[:, i] for i, name in enumerate(names)})
    assert all(torch.equal(rows[0][name], rows[1][name]) for name in rows[0])


@pytest.mark.parametrize("how", [swap_ids, shift_ids])
def test_tldet_test_matches_classes_by_name(run: Path, digits: Path, tmp_path: Path, how: Any) -> None:
    shutil.copytree(digits, tmp_path / "data")
    change(tmp_path, how)
    split = tmp_path / "data" / "test"
    before, after = evaluate(run / "best.pt"), evaluate(run / "best.pt", data=split / "_annotations.coco.json")
    assert after.numbers() == pytest.approx(before.numbers(), abs=1e-12)  # a mean in another order of the classes
    assert dict(after.per_class) == before.per_class


def test_pretrain_refuses_and_the_advice_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = generate_crops(tmp_path / "crops", train=60, val=20, side=32)
    options = ["data.loader.batch_size=4", "training.precision=fp32"]
    pretrain(made, out=tmp_path / "run", backbone=NAME, steps=1, cfg_options=options, report=False)
    next((made / "train" / "1").iterdir()).unlink()
    pretrain(out=tmp_path / "run", resume=True, report=False)
    assert "the training data has changed since the run" in caplog.text
    assert "the validation data has changed" not in caplog.text
    for split in ("train", "val"):
        (made / split / "0").rename(made / split / "zero")
    with pytest.raises(
        TrainingError, match=r"crops/train: the classes have changed .*removed: 0, new: zero"
    ) as refused:
        pretrain(out=tmp_path / "run", resume=True, cfg_options=["schedule.steps=2"], report=False)
    advice = str(refused.value).rpartition("--cfg-options ")[2]
    assert advice == f"model.backbone.weights={tmp_path / 'run' / 'best.pt'}"
    pretrain(made, out=tmp_path / "new", backbone=NAME, steps=0, cfg_options=[*options, advice], report=False)
    old, new = (checkpoint.load_checkpoint(tmp_path / name / "best.pt") for name in ("run", "new"))
    key = "backbone.body.conv_stem.weight"
    assert torch.equal((old["ema"] or old["model"])[key], new["model"][key])
