"""K shots from a checkpoint of ``extend --no-distill``, which has trained with ``partial=False``."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tldet import checkpoint
from tldet.data.loader import collate
from tldet.data.shots import write_base
from tldet.structures.target import Target
from tldet.transfer.restore import restore
from tldet.workflows.extend.extend import extend
from tldet.workflows.fewshot.fewshot import fewshot
from tldet.workflows.study.job import RUNS
from tldet.workflows.training.datasets import build_dataset
from tldet.workflows.training.finetune import finetune

NEW, NOVEL = "2", "8"
FIRST = tuple("01345679")
SMALL = ["data.loader.batch_size=2", "training.precision=fp32", "model.head.settings.score_thr=0.001"]


@pytest.fixture(scope="module")
def extended(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of eight digits, extended by a ninth without distillation; one step each."""
    folder = tmp_path_factory.mktemp("extended")
    truth, images = digits / "train" / "_annotations.coco.json", digits / "train"
    write_base(truth, (NEW, NOVEL), folder / "old.json", keep_images=True)
    write_base(truth, (*FIRST, NOVEL), folder / "new.json", keep_images=True)
    given: dict[str, Any] = {"images": images, "steps": 1, "report": False}
    old = {"train": folder / "old.json", "val": folder / "old.json"}
    finetune(out=folder / "base", model="retinanet_lite0", cfg_options=SMALL, **old, **given)
    new = {"train": folder / "new.json", "val": folder / "new.json"}
    extend(folder / "base" / "best.pt", out=folder / "out", distill=False, cfg_options=SMALL, **new, **given)
    return folder / "out" / "best.pt"


def shot(
    base: Path, digits: Path, out: Path, caplog: pytest.LogCaptureFixture, **more: Any
) -> tuple[dict[str, Any], int]:
    """The config of a K-shot run, and the number of further objects in its log line."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        fewshot(
            digits, out=out, base=base, novel=(NOVEL,), variants=("full",), shots=(1,), shot_steps=1, seeds=(0,), **more
        )
    (line,) = [one for one in caplog.messages if " further objects on these images " in one]
    assert line.endswith("treated as background" if more else "ignored (labeled_category_ids)")
    record = json.loads((out / "data" / f"1shot_seed0{'_background' if more else ''}.json").read_text())
    assert len(record["annotations"]) == 10
    (path,) = (out / RUNS / "full_shots1_seed0").glob("step_*.pt")
    return checkpoint.load_checkpoint(path)["config"], int(line.split("; ")[1].split()[0])


def gradients_of_unlabeled(config: dict[str, Any], base: Path) -> list[float]:
    """Largest gradient of the classifier weights of each base class that is not annotated on an image."""
    dataset: Any = build_dataset(config["data"]["train"], 0)
    restored, found = restore(base)[0], []
    detector: Any = restored.train()
    own = [dataset.class_names.index(name) for name in detector.class_names]
    for sample in (dataset[i] for i in range(len(dataset))):
        labeled = sample.target.labeled
        if labeled is None or labeled.all():
            continue
        labels = [own.index(i) if i in own else -1 for i in sample.target.labels.tolist()]
        rows = torch.tensor([label >= 0 for label in labels], dtype=torch.bool)
        target = Target(sample.target.boxes[rows], torch.tensor(labels)[rows], labeled=labeled[own])
        detector.zero_grad()
        sum(detector(collate([replace(sample, target=target)])).values()).backward()
        weight = detector.head.cls_score.weight.grad
        by_class = weight.reshape(-1, len(own), *weight.shape[1:]).abs().amax((0, 2, 3, 4))
        assert float(by_class[labeled[own]].min()) > 0
        found += by_class[~labeled[own]].tolist()
    return found


def test_undrawn_objects_are_not_background(
    extended: Path, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = checkpoint.load_checkpoint(extended)["config"]
    assert base["data"]["train"]["partial"] is False, "the base has trained every class as annotated"
    config, dropped = shot(extended, digits, tmp_path / "o", caplog)
    assert dropped > 0
    train = config["data"]["train"]
    assert train.keys() == {"type", "annotations", "images", "transforms"}
    assert train["transforms"] == base["data"]["train"]["transforms"]
    assert not {"freeze", "l2_sp", "class_match", "distill", "hooks"} & config.keys()
    sections = [{k: v for k, v in one["optimizer"].items() if k != "lr"} for one in (config, base)]
    assert sections[0] == sections[1]
    for split in ("train", "test"):
        assert [line for line in caplog.messages if line.startswith(f"{split}: ") and "; images in " in line]
    gradients = gradients_of_unlabeled(config, extended)
    assert len(gradients) > 3
    assert max(gradients) == 0
    paper, same = shot(extended, digits, tmp_path / "paper", caplog, as_background=True)
    assert same == dropped
    assert gradients_of_unlabeled(paper, extended) == []
