"""The public API is a short explicit list, imported when used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tldet
from tldet.errors import ConfigError

PROMISED = ["train", "finetune", "test", "evaluate", "predict", "load", "export", "study", "draw"]
PROMISED += ["Detections", "Target", "Detector", "Trainer"]


@pytest.mark.parametrize("name", tldet.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(tldet, name)
    assert inspect.getdoc(value)
    assert name.isupper() or value.__name__ == name


def test_the_promised_names_are_public() -> None:
    assert set(PROMISED) <= set(tldet.__all__)
    assert dir(tldet) == sorted([*tldet.__all__, "__version__"])
    assert len(tldet.__all__) == len(set(tldet.__all__))
    with pytest.raises(AttributeError, match="module 'tldet' has no attribute 'finetun'"):
        tldet.finetun  # type: ignore[attr-defined]  # noqa: B018


def test_imports_for_type_checkers_name_what_is_imported_when_used() -> None:
    source = Path(tldet.__file__).read_text(encoding="utf-8")
    for name in tldet.__all__:
        assert f"    from {tldet._MODULES[name]} import {name} as {name}\n" in source


def test_import_alone_imports_nothing_heavy() -> None:
    code = "import sys, tldet; print([m for m in ('torch', 'mmengine', 'numpy', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("freeze", {}, "study: kind must be one of transfer, backbones, data, not 'freeze'"),
        ("transfer", {"step": 3}, "study: unknown setting 'step'; did you mean 'steps'?"),
        ("data", {"variants": ["a"]}, "study: variants does not apply to a study of data"),
        ("transfer", {"predict": [5]}, "study: predict does not apply to a study of transfer"),
        ("backbones", {"variants": ["resnet18"]}, "two backbones or more"),
    ],
)
def test_studies_check_their_arguments(kind: str, settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tldet.study(kind, "data", out=tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert message in str(caught.value)
