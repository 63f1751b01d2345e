"""The public API: an explicit list, imported on use, with the names and defaults of the command line."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tldet
from tldet.cli.commands import COMMANDS
from tldet.cli.main import build_parser
from tldet.errors import ConfigError
from tldet.workflows.browse.browse import browse
from tldet.workflows.check.check import check
from tldet.workflows.convert import convert
from tldet.workflows.extend.extend import extend
from tldet.workflows.fewshot.fewshot import fewshot
from tldet.workflows.get_data.get import get_data
from tldet.workflows.import_checkpoint import import_checkpoint
from tldet.workflows.merge.merge import merge
from tldet.workflows.models import models
from tldet.workflows.predict.merge_results import merge_results
from tldet.workflows.quickstart import quickstart
from tldet.workflows.report.command import report
from tldet.workflows.report.compare import compare as compare_detectors
from tldet.workflows.requests import Request, signature_of
from tldet.workflows.serve.serve import serve
from tldet.workflows.split.split import split
from tldet.workflows.study.request import (
    AugmentStudyRequest,
    BackboneStudyRequest,
    DataStudyRequest,
    TransferStudyRequest,
    VariantStudyRequest,
)
from tldet.workflows.training.pretrain import pretrain
from tldet.workflows.watch.watch import watch

PUBLIC = ["train", "finetune", "test", "evaluate", "predict", "load", "export", "study", "draw"]
PUBLIC += ["Detections", "Target", "Detector", "Trainer", "Backbone", "Head", "Callback", "DetectionDataset"]
PUBLIC += ["BACKBONES", "NECKS", "HEADS", "DATASETS", "TRANSFORMS", "OPTIMIZERS", "HOOKS", "TldetError"]

NEEDED = {  # commands with their required arguments
    "train": ["c"],
    "finetune": ["--out", "o"],
    "extend": ["--out", "o"],
    "pretrain": ["--out", "o"],
    "fewshot": ["--out", "o", "--novel", "a"],
    "test": ["c.pt"],
    "export": ["c.pt", "--format", "onnx"],
    "evaluate": ["--gt", "a.json", "--dt", "b.json"],
    "predict": ["c.pt", "a.jpg"],
    "check": ["a"],
    "split": ["a", "--out", "o"],
    "merge-results": ["a.jsonl"],
    "serve": ["c.pt"],
    "report": [],
    "compare": ["a.pt", "b.pt"],
    "merge": ["a", "b", "--out", "o"],
    "convert": ["a", "--to", "yolo", "--out", "o"],
    "data": ["get", "bccd"],
    "browse": ["d"],
    "models": [],
    "import": ["c.pth", "--out", "o"],
    "quickstart": [],
    "watch": ["runs/a"],
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(tldet, name) for name in ("train", "finetune", "test", "evaluate", "predict", "export")},
    "browse": browse,
    "data": get_data,
    "extend": extend,
    "pretrain": pretrain,
    "report": report,
    "compare": compare_detectors,
    "fewshot": fewshot,
    "check": check,
    "split": split,
    "merge": merge,
    "convert": convert,
    "models": models,
    "merge-results": merge_results,
    "serve": serve,
    "import": import_checkpoint,
    "quickstart": quickstart,
    "watch": watch,
}
ONLY_IN_PYTHON = {"console", "callbacks", "on_load", "demo"}
ONLY_IN_PARSER = {"command", "run", "imports", "kind", "action"}


def compare(arguments: list[str], signature: inspect.Signature) -> None:
    """Compare names and defaults of a command with those of a function."""
    given = vars(build_parser().parse_args(arguments))
    parameters = signature.parameters
    assert set(given) - ONLY_IN_PARSER == set(parameters) - (ONLY_IN_PYTHON - given.keys())
    for name in given.keys() - ONLY_IN_PARSER:
        default = parameters[name].default
        if default is not inspect.Parameter.empty:
            assert given[name] == default or (given[name], default) == ([], ()), name


@pytest.mark.parametrize("command", NEEDED)
def test_names_and_defaults_are_those_of_the_command_line(command: str) -> None:
    compare([command, *NEEDED[command]], inspect.signature(FUNCTIONS[command]))


@pytest.mark.parametrize(
    ("kind", "request_type"),
    [
        ("transfer", TransferStudyRequest),
        ("backbones", BackboneStudyRequest),
        ("data", DataStudyRequest),
        ("variants", VariantStudyRequest),
        ("augment", AugmentStudyRequest),
    ],
)
def test_names_and_defaults_of_studies_are_those_of_the_command_line(kind: str, request_type: type[Request]) -> None:
    names = ["resnet18", "resnet34"] if kind in ("backbones", "variants") else []
    compare(["study", kind, *names, "--out", "o"], signature_of(request_type))


def test_every_command_is_compared() -> None:
    assert {*NEEDED, "study"} == set(COMMANDS)


@pytest.mark.parametrize("name", tldet.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(tldet, name)
    assert inspect.getdoc(value)
    assert name.isupper() or value.__name__ == name


def test_the_public_names_are_these() -> None:
    assert sorted(PUBLIC) == sorted(tldet.__all__)
    assert dir(tldet) == sorted([*tldet.__all__, "__version__"])
    assert len(tldet.__all__) == len(set(tldet.__all__))
    with pytest.raises(AttributeError, match="module 'tldet' has no attribute 'finetun'"):
        tldet.finetun  # type: ignore[attr-defined]  # noqa: B018


def test_imports_for_type_checkers_match_lazy_imports() -> None:
    source = Path(tldet.__file__).read_text(encoding="utf-8")
    for name in tldet.__all__:
        assert f"    from {tldet._MODULES[name]} import {name} as {name}\n" in source


def test_import_alone_imports_nothing_heavy() -> None:
    code = "import sys, tldet; print([m for m in ('torch', 'mmengine', 'numpy', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("freeze", {}, ConfigError, "study: kind must be transfer, backbones, data, variants or augment, not 'freeze'"),
        ("transfer", {"step": 3}, TypeError, "'step'"),
        ("data", {"variants": ["a"]}, TypeError, "'variants'"),
        ("transfer", {"predict": [5]}, TypeError, "'predict'"),
        ("backbones", {"variants": ["resnet18"]}, ConfigError, "two or more backbones"),
        ("variants", {"variants": ["a=lr=0.1"]}, ConfigError, "two or more variants"),
        ("augment", {"variants": ["light", "light"]}, ConfigError, "light is given twice"),
        ("data", {"fractions": [0.5, 2.0]}, ConfigError, "--fractions must be above 0 and at most 1, not 2.0"),
    ],
)
def test_studies_check_their_arguments(
    kind: str, options: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        tldet.study(kind, "data", out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": 1.5}, "--score must be from 0 to 1, not 1.5"),
        ({"score": float("nan")}, "--score must be from 0 to 1, not nan"),
        ({"max_pixels": 0}, "--max-pixels must be an integer of at least 1, not 0"),
    ],
)
def test_prediction_checks_its_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tldet.predict("c.pt", "a.jpg", **options)
    assert str(caught.value) == message


def test_results_have_short_reprs_and_html(tmp_path: Path) -> None:
    from tldet.engine.state import TrainResult
    from tldet.workflows.export.result import ExportResult
    from tldet.workflows.extend.report import ClassMetrics, ExtendReport
    from tldet.workflows.fewshot.summary import FewShotReport
    from tldet.workflows.predict.summary import Summary
    from tldet.workflows.study.report import StudyReport
    from tldet.workflows.training.train_classifier import Pretrained

    metrics = ("base_AP", "base_AP50", "novel_AP", "novel_AP50")
    shots = {"variant": "a<b", "shots": 5, "seed": 0, **dict.fromkeys(metrics, 0.25)}
    records = [{"category_name": "c<d", "score": 0.5}] * 500
    results = {
        "StudyReport(2 runs: a is better)": StudyReport([{"settings": "x" * 999}] * 2, [], [], ["a is better"]),
        "ExtendReport(AP of old classes -0.100, AP of new classes 0.300, checkpoint 'best.pt')": ExtendReport(
            ("a<b",), ("c",), ClassMetrics({"a<b": 0.5}), ClassMetrics({"a<b": 0.4, "c": 0.3}), "best.pt"
        ),
        "FewShotReport(AP of novel classes: a<b with 5 shots 0.250)": FewShotReport(
            dict.fromkeys(metrics, 0.5), [shots]
        ),
        "Summary(3 images, 500 detections, 1.5 images/s)": Summary(3, detections=500, seconds=2.0, records=records),
        "ExportResult(file m.onnx, verification passed, AP 0.500 before, 0.499 after)": ExportResult(
            Path("m.onnx"), before=0.5, after=0.499, quantization={"parts": ["x"] * 999}
        ),
        "Pretrained(backbone b.safetensors, steps 7, top1 0.500)": Pretrained(
            tmp_path, TrainResult(7, 0.5, 7, {}, 9.0, "finished", None, None), Path("b.safetensors"), {"top1": 0.5}
        ),
    }
    for text, result in results.items():
        assert repr(result) == text
        html = result._repr_html_()  # type: ignore[attr-defined]
        assert html.startswith("<table>")
        assert "<b>" not in html
        assert "a<b" not in html
        assert "c<d" not in html
