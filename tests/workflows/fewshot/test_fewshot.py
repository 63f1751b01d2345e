"""A small experiment: trained layers, evaluation, and resuming after an interruption."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tldet import checkpoint
from tldet.engine import loop
from tldet.engine.precision import Precision
from tldet.engine.trainer import Trainer
from tldet.errors import CheckpointError, TrainingError
from tldet.inference.predictor import Predictor
from tldet.models.cosine import CosineClassifier
from tldet.transfer.restore import restore
from tldet.workflows.fewshot.fewshot import fewshot
from tldet.workflows.fewshot.summary import FewShotReport
from tldet.workflows.study.job import RUNS
from tldet.workflows.test import test as evaluate

LAST = ("head.box.cls_score.", "head.box.bbox_pred.")
SMALL = ("training.precision=fp32", "data.loader.batch_size=2", "model.head.roi.score_thr=0.001",
         "model.head.roi.max_per_img=20", "model.head.rpn.nms_post=[100, 50]",
         "data.train.transforms.0.short=96", "data.train.transforms.0.long=128",
         "data.val.transforms.0.short=96", "data.val.transforms.0.long=128")  # fmt: skip


def experiment(data: Path, out: Path, seeds: tuple[int, ...] = (0,), **changed: Any) -> FewShotReport:
    options: dict[str, Any] = {"steps": 2, "cfg_options": SMALL, "novel": ("4", "9"), "shots": (1,)}
    options |= {"variants": ("tfa",), "shot_steps": 3, "lr_factor": 1.0, **changed}
    return fewshot(data, out=out, seeds=seeds, **options)


@pytest.fixture(scope="module")
def out(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fewshot") / "out"
    experiment(digits, folder, variants=("tfa", "full"))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load_checkpoint(json.loads((folder / "result.json").read_text())["checkpoint"])
    return state["model"]  # type: ignore[no-any-return]


def test_base_training_has_no_novel_classes(out: Path) -> None:
    state = checkpoint.load_checkpoint(out / RUNS / "base" / "best.pt")
    assert state["meta"]["class_names"] == [c for c in "0123456789" if c not in "49"]
    reported = json.loads((out / RUNS / "base" / "result.json").read_text())
    assert list(reported["per_class"]) == list(state["meta"]["class_names"])
    before = json.loads((out / "fewshot.json").read_text())["before"]
    assert before["novel_AP"] == before["novel_AP50"] == -1.0


def test_tfa_trains_the_last_layers_only_and_full_all_trainable_layers(out: Path) -> None:
    base = checkpoint.load_checkpoint(out / RUNS / "base" / "best.pt")
    start = base.get("ema") or base["model"]
    tfa, full = (weights(out / RUNS / f"{variant}_shots1_seed0") for variant in ("tfa", "full"))
    assert tfa["head.box.cls_score.weight"].shape == (11, 512)
    assert "head.box.cls_score.bias" not in tfa
    shared = [name for name in tfa if not name.startswith(LAST) and not name.endswith("num_batches_tracked")]
    assert len(shared) == 280
    assert all(torch.equal(tfa[name], start[name]) for name in shared), "statistics of norms too"
    moved = [name for name in shared if not torch.equal(full[name], start[name])]
    assert {name.partition(".")[0] for name in moved} == {"backbone", "neck", "head"}
    row, theirs = tfa["head.box.bbox_pred.weight"][:4], start["head.box.bbox_pred.weight"][:4]
    assert not torch.equal(row, theirs)
    assert torch.allclose(row, theirs, atol=0.02), "class 0 began as the base training left it"


def test_the_numbers_are_those_of_the_last_checkpoint_on_the_test_split(out: Path, digits: Path) -> None:
    reported = json.loads((out / "fewshot.json").read_text())
    assert [(r["variant"], r["shots"], r["seed"]) for r in reported["runs"]] == [("tfa", 1, 0), ("full", 1, 0)]
    folder = out / RUNS / "tfa_shots1_seed0"
    assert [p.name for p in folder.glob("*.pt")] == ["step_00000003.pt"]
    result = evaluate(folder / "step_00000003.pt", data=digits / "test/_annotations.coco.json", images=digits / "test")
    by_class = {n: v for n, v in result.per_class.items() if v >= 0}
    novel = [by_class[n] for n in "49"]
    assert reported["runs"][0]["novel_AP"] == pytest.approx(sum(novel) / 2)
    base = [v for n, v in by_class.items() if n not in "49"]
    assert reported["runs"][0]["base_AP"] == pytest.approx(sum(base) / len(base))
    assert evaluate(folder / "step_00000003.pt").numbers() == result.numbers(), "its own config names the data"
    assert len(json.loads((out / "data" / "1shot_seed0.json").read_text())["annotations"]) == 10


def test_finished_runs_are_kept_and_an_interrupted_run_resumes(
    out: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, step = json.loads((out / "fewshot.json").read_text()), loop._step
    steps: list[str] = []

    def interrupted(run: Trainer, *given: Any) -> bool:
        steps.append(run.work_dir.name)
        os.kill(os.getpid(), signal.SIGINT)
        return step(run, *given)

    monkeypatch.setattr(loop, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the same command resumes"):
        experiment(digits, out, variants=("tfa", "full"), seeds=(0, 1))
    assert steps == ["tfa_shots1_seed1"], "the base and seed 0 were done"
    monkeypatch.setattr(loop, "_step", step)
    after = experiment(digits, out, variants=("tfa",), seeds=(0, 1))
    assert after.runs[0] == before["runs"][0]
    assert after.settings()[0]["seeds"] == [0, 1]
    alone = tmp_path / "alone"
    experiment(digits, alone, seeds=(1,), steps=None, cfg_options=(), base=out / RUNS / "base" / "best.pt")
    ours, theirs = weights(out / RUNS / "tfa_shots1_seed1"), weights(alone / RUNS / "tfa_shots1_seed1")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours), "as if it had been left alone"


def test_a_base_of_other_classes_or_settings_is_refused(out: Path, run: Path, digits: Path, tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"steps": None, "cfg_options": ()}
    with pytest.raises(CheckpointError, match=r"was trained on class '4', which is in --novel"):
        experiment(digits, tmp_path, base=run / "best.pt", **nothing)
    with pytest.raises(CheckpointError, match=r"lacks class '9'; add it to --novel"):
        experiment(digits, tmp_path, base=out / RUNS / "base" / "best.pt", novel=("4",), **nothing)
    with pytest.raises(TrainingError, match=r"--base and --steps cannot be combined"):
        experiment(digits, tmp_path, base=out / RUNS / "base" / "best.pt", cfg_options=())
    with pytest.raises(TrainingError, match=r"other settings: call\.lr_factor was 1\.0, now 0\.5"):
        experiment(digits, out, lr_factor=0.5)
    assert not (tmp_path / RUNS).exists()


def test_the_cosine_classifier_of_a_detector_loaded_in_bf16_is_that_of_fp32(out: Path, digits: Path) -> None:
    path = out / RUNS / "tfa_shots1_seed0" / "step_00000003.pt"
    stored = restore(path)[0].eval()
    given: dict[str, Any] = {"short": 96, "long": 128, "precision": Precision("bf16")}  # also on a CPU without bf16
    predictor = Predictor(restore(path)[0], range(10), **given)
    ours, theirs = predictor.model.head.box.cls_score, stored.head.box.cls_score  # type: ignore[union-attr]
    assert isinstance(ours, CosineClassifier)
    assert next(predictor.model.neck.lateral[0].parameters()).dtype == torch.bfloat16  # type: ignore[union-attr]
    assert [p.dtype for p in ours.parameters()] == [torch.float32]
    assert torch.equal(ours.weight, theirs.weight)
    features: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    ours.register_forward_hook(lambda _, given, found: (features.append(given[0]), logits.append(found))[0])
    predictor.predict(sorted((digits / "test").glob("*.jpg"))[0])
    assert len(features) == 1
    assert features[0].dtype == torch.bfloat16
    assert logits[0].dtype == torch.float32
    with torch.inference_mode():
        expected = theirs(features[0].float())
    assert torch.equal(logits[0].softmax(1), expected.softmax(1))
