"""Commands take datasets in any format."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook

from tests.data.formats.made import make
from tldet.errors import DataError
from tldet.workflows.convert import convert
from tldet.workflows.extend.extend import extend
from tldet.workflows.fewshot.fewshot import fewshot
from tldet.workflows.fewshot.plan import prepare_experiment
from tldet.workflows.fewshot.request import FewShotRequest
from tldet.workflows.merge.merge import merge
from tldet.workflows.study.data import JsonData, layout_of
from tldet.workflows.study.request import ExperimentRequest
from tldet.workflows.test import test as evaluate
from tldet.workflows.training.finetune import finetune

SETTINGS = {"model": "retinanet_lite0", "scratch": True, "batch_size": 2}
OPTIONS = ["training.precision=fp32", "training.validate_every=None"]


class Interrupt(Hook):
    """Presses Ctrl-C after step 2."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
        if batch_idx + 1 == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def yolo(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yolo") / "digits"
    convert(digits, to="yolo", out=folder)
    return folder


@pytest.fixture(scope="module")
def voc(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc") / "digits"
    convert(digits, to="voc", out=folder)
    return folder


def test_metrics_do_not_depend_on_the_format(run: Path, digits: Path, yolo: Path, voc: Path) -> None:
    """Those of object sizes do: the masks whose areas count are lost."""

    def metrics(data: Path) -> dict[str, float]:
        numbers = evaluate(run / "best.pt", data=data).numbers()
        return {name: value for name, value in numbers.items() if name[-1] not in "sml"}

    expected = metrics(digits)
    assert expected["AP"] > 0
    assert metrics(voc) == pytest.approx(expected, abs=1e-6)
    assert metrics(yolo / "data.yaml") == pytest.approx(expected, abs=1e-6)


def test_a_run_resumes_exactly_without_its_annotations(voc: Path, tmp_path: Path) -> None:
    """The run keeps its own copy of the annotations; the images stay where they are."""
    source = tmp_path / "source"
    shutil.copytree(voc, source)
    straight = finetune(source, out=tmp_path / "straight", steps=4, cfg_options=OPTIONS, **SETTINGS, report=False)
    with pytest.raises(KeyboardInterrupt):
        finetune(
            source,
            out=tmp_path / "resumed",
            steps=4,
            cfg_options=OPTIONS,
            callbacks=[Interrupt()],
            **SETTINGS,
            report=False,
        )
    shutil.rmtree(source / "Annotations")
    resumed = finetune(
        source, out=tmp_path / "resumed", steps=4, cfg_options=OPTIONS, resume=True, **SETTINGS, report=False
    )
    states = [torch.load(one.trained(), weights_only=True)["model"] for one in (straight, resumed)]
    assert all(torch.equal(states[1][key], value) for key, value in states[0].items())


def test_formats_are_merged(tmp_path: Path) -> None:
    """Three formats with the same images in different folders: their copies are merged."""
    inputs = [make(tmp_path / name, name) for name in ("cvat", "createml", "coco")]
    report = merge(inputs, out=tmp_path / "merged")
    assert [(one.images, one.objects) for one in report.inputs] == [(3, 4)] * 3
    assert [(one.images, one.merged_images, one.objects) for one in report.splits] == [(3, 6, 4)]


def test_studies_and_few_shot_experiments_read_the_splits(voc: Path, yolo: Path, tmp_path: Path) -> None:
    data = JsonData.of(ExperimentRequest(voc, out=tmp_path / "study"))
    assert (len(data.index), data.train.annotations.name) == (16, "train.json")
    assert data.validation.images == data.train.images == voc / "JPEGImages"
    names = data.index.class_names
    setup = prepare_experiment(FewShotRequest(yolo / "data.yaml", out=tmp_path / "few", novel=[names[0]], shots=[1]))
    assert setup.test.annotations.name == "test.json"


def test_train_and_val_may_have_different_formats(tmp_path: Path) -> None:
    train, val = make(tmp_path / "train", "cvat"), make(tmp_path / "val", "yolo")
    given = {"out": tmp_path / "out", "val": val / "data.yaml"}
    layout = layout_of(ExperimentRequest(train=train / "annotations.xml", **given))
    assert layout.val is not None
    assert [layout.train.annotations.name, layout.val.annotations.name] == ["train.json", "val.json"]
    with pytest.raises(DataError, match="use --train for the training annotations"):
        layout_of(ExperimentRequest(train, **given))


def test_a_yolo_folder_is_extended_and_used_for_few_shots(digits: Path, tmp_path: Path) -> None:
    for name, classes in (("old", "01234567"), ("new", "89")):
        (tmp_path / f"{name}.txt").write_text("\n".join(classes))
        convert(digits, to="yolo", out=tmp_path / name, classes=tmp_path / f"{name}.txt")
    base = finetune(
        tmp_path / "old", out=tmp_path / "base", steps=1, cfg_options=OPTIONS, **SETTINGS, report=False
    ).trained()
    report = extend(
        base, data=tmp_path / "new", replay=tmp_path / "old", out=tmp_path / "extended", steps=1, report=False
    )
    assert (report.old, report.new) == (tuple("01234567"), tuple("89"))
    assert max(report.before.AP.values()) >= 0
    options = {"novel": ("8", "9"), "shots": (1,), "variants": ("full",), "shot_steps": 1, "base": base}
    convert(digits, to="yolo", out=tmp_path / "all")
    few = fewshot(tmp_path / "all", out=tmp_path / "few", **options)
    assert few.runs[0]["novel_AP"] >= 0
