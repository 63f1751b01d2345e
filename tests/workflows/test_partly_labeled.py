"""Fine-tuning on images that are labeled in part: from the JSON to the numbers, and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tldet import checkpoint
from tldet.workflows.training.finetune import finetune

HALVES = Path(__file__).resolve().parents[1] / "halves.py"


@pytest.fixture(scope="module")
def partly(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' training annotations, half of the images labeled for 0 to 4 only, the others for the rest."""
    out = tmp_path_factory.mktemp("partly") / "halves.json"
    given = [str(digits / "train" / "_annotations.coco.json"), str(out), *"01234"]
    subprocess.run([sys.executable, str(HALVES), *given], check=True)
    return out


def test_the_halves(partly: Path, digits: Path) -> None:
    whole, made = (json.loads(p.read_text()) for p in (digits / "train" / "_annotations.coco.json", partly))
    stated = {image["id"]: image["labeled_category_ids"] for image in made["images"]}
    assert sorted(len(ids) for ids in stated.values()) == [5] * 16
    assert len({tuple(ids) for ids in stated.values()}) == 2
    expected = [a for a in whole["annotations"] if a["category_id"] in stated[a["image_id"]]]
    assert made["annotations"] == expected
    assert 0 < len(expected) < len(whole["annotations"])


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("faster_rcnn_lite0", ["model.head.roi.spare_score=0.1", "model.head.roi.dropout=0.2"]),
        ("dfine_lite0", []),
    ],
)
def test_a_run_on_partly_labeled_images_resumes_to_the_same_weights(
    partly: Path, digits: Path, tmp_path: Path, model: str, more: list[str]
) -> None:
    """With scores so low that much is spared, and dropout, which looking for it must not draw from."""
    options = [
        "data.loader.batch_size=2",
        "training.checkpoint_every=0.25",
        "training.log_every=1",
        "training.precision=fp32",
        *more,
    ]
    out = tmp_path / "out"
    given = {"train": partly, "val": partly, "images": digits / "train"}
    outcome = finetune(out=out, model=model, steps=4, cfg_options=options, **given, report=False)
    assert outcome.result is not None
    assert outcome.result.unjudged > 0, "no detection of a class its image was not labeled for is scored"
    last = out / "step_00000004.pt"
    whole = checkpoint.load_checkpoint(last)["model"]
    last.unlink()
    assert (out / "step_00000002.pt").exists()
    finetune(out=out, resume=True, report=False)
    again = checkpoint.load_checkpoint(last)["model"]
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    every = finetune(
        out=tmp_path / "every",
        model=model,
        steps=4,
        cfg_options=[*options, "data.train.partial=False"],
        **given,
        report=False,
    )
    assert every.checkpoint is not None
    other = checkpoint.load_checkpoint(tmp_path / "every" / "step_00000004.pt")["model"]
    assert not all(torch.equal(whole[key], other[key]) for key in whole)
