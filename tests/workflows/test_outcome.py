"""The result, the table and the checkpoint at the end of a run belong together."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from rich.console import Console

from tldet import checkpoint
from tldet.engine.logging import read_log
from tldet.errors import DataError
from tldet.registry import HOOKS
from tldet.workflows.test import test as evaluate
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.outcome import Outcome
from tldet.workflows.training.train import train

OPTIONS = [
    "data.loader.batch_size=2",
    "training.log_every=2",
    "training.precision=fp32",
    "training.validate_every=0.25",
    "training.checkpoint_every=0.25",
    "model.head.settings.score_thr=0.001",
    "optimizer.lr=0.004",
]


class Spoil(Hook):  # type: ignore[misc]
    """Ruin the classifier after a step, or interrupt the run there."""

    def __init__(self, step: int, interrupt: int = 0) -> None:
        self.step, self.interrupt = step, interrupt

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if batch_idx + 1 >= self.step:
            shadows = runner.ema.shadow.items() if runner.ema else []
            with torch.no_grad():
                for name, value in [*runner.model.named_parameters(), *shadows]:
                    if name.startswith("head.") and name.endswith("bias"):
                        value.fill_(-20.0)
        if batch_idx + 1 == self.interrupt:
            runner.stop("test")


@pytest.fixture(autouse=True)
def _hook() -> Iterator[None]:
    HOOKS.register_module(module=Spoil, force=True)
    yield
    HOOKS.module_dict.pop("Spoil")


@pytest.fixture(scope="module")
def data(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits without a test split, so that both commands evaluate on the same images."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    shutil.copytree(digits, folder)
    shutil.rmtree(folder / "test")
    return folder


def trained(data: Path, out: Path, *options: str, steps: int = 6) -> tuple[Outcome, str]:
    text = io.StringIO()
    console = Console(file=text, width=200)
    return finetune(
        data,
        out=out,
        model="retinanet_lite0",
        steps=steps,
        cfg_options=[*OPTIONS, *options],
        console=console,
        report=False,
    ), (text.getvalue())


def belong_together(outcome: Outcome, text: str) -> None:
    """``tldet test`` of the named checkpoint gives the result, and the table shows it."""
    assert outcome.checkpoint is not None
    assert outcome.result is not None
    again = evaluate(outcome.checkpoint)
    assert again.numbers() == outcome.result.numbers()
    assert again.per_class == outcome.result.per_class
    saved = checkpoint.load_checkpoint(outcome.checkpoint)["meta"]["trained"]
    assert {name: saved["metrics"][name] for name in again.numbers()} == again.numbers()
    table = io.StringIO()
    Console(file=table, width=200).print(*again.tables(), sep="\n")
    assert table.getvalue() in text
    assert f"{outcome.checkpoint}: step {saved['steps']} of {outcome.train.step}, evaluated on" in text


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("hooks=[{'type': 'Spoil', 'step': 3}]",),
        ("hooks=[{'type': 'Spoil', 'step': 3}]", "training.ema=0.5"),
        ("hooks=[{'type': 'Spoil', 'step': 3}]", "training.ema=None", "training.patience=1"),
        ("hooks=[{'type': 'Spoil', 'step': 3, 'interrupt': 5}]",),  # ends between two validations
        ("hooks=[{'type': 'Spoil', 'step': 3}]", "training.best_metric='AR100'"),
    ],
)
def test_result_table_and_checkpoint(data: Path, tmp_path: Path, more: Sequence[str]) -> None:
    outcome, text = trained(data, tmp_path / "out", *more)
    belong_together(outcome, text)
    if more:
        assert outcome.train.best_step == 2
        assert outcome.train.step > 2
        assert outcome.train.metrics["AR100"] == 0 < outcome.result.AR100  # type: ignore[union-attr]


def test_initial_weights(data: Path, tmp_path: Path) -> None:
    outcome, text = trained(data, tmp_path / "out", steps=0)
    assert (outcome.train.step, outcome.train.best_step) == (0, 0)
    belong_together(outcome, text)


def test_the_best_validation_was_before_the_interruption(data: Path, tmp_path: Path) -> None:
    """The process that ends the run never evaluated the weights that it reports."""
    first, _ = trained(data, tmp_path / "out", "hooks=[{'type': 'Spoil', 'step': 3, 'interrupt': 4}]")
    assert first.train.step == 4
    text = io.StringIO()
    console = Console(file=text, width=200)
    hook = ["hooks=[{'type': 'Spoil', 'step': 3}]"]
    outcome = finetune(out=tmp_path / "out", resume=True, cfg_options=hook, console=console, report=False)
    assert (outcome.train.step, outcome.train.best_step) == (6, 2)
    belong_together(outcome, text.getvalue())
    finished = train(tmp_path / "out" / "config.py", work_dir=tmp_path / "out", resume=True, report=False)
    assert finished.result == outcome.result


def test_without_best_pt_the_last_checkpoint_s_own_numbers_are_reported(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "out", "hooks=[{'type': 'Spoil', 'step': 3, 'interrupt': 5}]")
    (tmp_path / "out" / "best.pt").unlink()
    finished = finetune(out=tmp_path / "out", resume=True, cfg_options=["schedule.steps=5"], report=False)
    assert finished.checkpoint == tmp_path / "out" / "step_00000005.pt"
    assert finished.result is None, "its weights were not evaluated"


def test_without_validation_there_is_no_result(data: Path, tmp_path: Path) -> None:
    outcome, text = trained(data, tmp_path / "out", "data.val=None", steps=2)
    assert outcome.result is None
    assert outcome.checkpoint == tmp_path / "out" / "step_00000002.pt"
    assert "COCO bbox" not in text


def emptied(data: Path, kind: str) -> Path:
    """The data with nothing to find in its validation split."""
    path = data / "valid" / "_annotations.coco.json"
    truth = json.loads(path.read_text())
    if kind == "none":
        truth["annotations"] = []
    elif kind == "crowd":
        box = truth["annotations"][0]
        truth["annotations"] = [{**box, "iscrowd": 1, "segmentation": {"counts": [96 * 128], "size": [96, 128]}}]
    elif kind == "unlabeled":
        truth["images"] = [{**image, "labeled_category_ids": []} for image in truth["images"]]
    elif kind == "foreign":
        truth["categories"].append({"id": 99, "name": "cat"})
        truth["annotations"] = [{**one, "category_id": 99} for one in truth["annotations"]]
    path.write_text(json.dumps(truth))
    return data


@pytest.mark.parametrize("kind", ["none", "crowd", "unlabeled"])
def test_a_validation_set_without_objects(
    data: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(data, tmp_path / "data")
    outcome, text = trained(emptied(tmp_path / "data", kind), tmp_path / "out", "training.patience=1")
    warned = [record.getMessage() for record in caplog.records if "no object to evaluate on" in record.getMessage()]
    assert len(warned) == 1
    assert "_annotations.coco.json" in warned[0]
    assert outcome.train.step == 6, "patience counts validations without a gain, not those without objects"
    assert outcome.checkpoint == tmp_path / "out" / "best.pt"
    best, last = (checkpoint.load_checkpoint(tmp_path / "out" / name) for name in ("best.pt", "step_00000006.pt"))
    assert best["meta"]["trained"]["steps"] == 6
    weights, latest = (one["ema"] or one["model"] for one in (best, last))
    assert all(torch.equal(weights[name], latest[name]) for name in latest)
    belong_together(outcome, text)
    assert [r["AP"] for r in read_log(tmp_path / "out" / "log.jsonl") if r["type"] == "val"] == [-1] * 3
    assert "no validation gave a value of AP" in text


def test_a_validation_set_of_other_objects_is_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    with pytest.raises(
        DataError, match=r"_annotations.coco.json: no object to evaluate on: the model lacks all classes \(cat\)"
    ):
        trained(emptied(tmp_path / "data", "foreign"), tmp_path / "out")
    assert not checkpoint.steps_in(tmp_path / "out")
