"""Files that are no D-FINE, or not the one they are taken for: one line, exit code 2, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.tools import with_slow
from tests.transfer.interop.test_dfine_files import detector, in_authors_names
from tldet.cli.main import main

State = dict[str, Tensor]
NAME, CLASSES = "dfine_n", 3
LAST = "decoder.dec_score_head.2.weight"


class Code:
    """Code that would run while an ordinary unpickler reads it."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/tldet-ran"),))


@pytest.fixture(scope="module")
def state() -> State:
    return {name: value.contiguous() for name, value in in_authors_names(detector(NAME, CLASSES).state_dict()).items()}


def without(*parts: str) -> Callable[[State], State]:
    return lambda state: {name: one for name, one in state.items() if not any(part in name for part in parts)}


def only(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {name: one for name, one in state.items() if name.startswith(prefixes)}


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, name: change(state[name])}


def of_objects365(state: State) -> State:
    """365 outputs of every classifier."""
    parts = ("enc_score_head", "dec_score_head")
    return {n: one.new_zeros(365, *one.shape[1:]) if any(p in n for p in parts) else one for n, one in state.items()}


CONTENTS: dict[str, tuple[Callable[[State], State], list[str], str]] = {
    "another size": (without(".layers.2."), [], "match no model that can be imported"),
    "no decoder": (only("backbone.", "encoder."), [], "match no model that can be imported"),
    "no encoder": (only("backbone.", "decoder."), [], "match no model that can be imported"),
    "a backbone": (only("backbone."), [], "match no model that can be imported"),
    "a layer is missing": (without("pre_bbox_head.layers.0.weight"), [], "1 missing (head.decoder.pre_bbox_head"),
    "one too many": (lambda state: {**state, "decoder.more.weight": torch.zeros(2)}, [], "1 unexpected ("),
    "another shape": (changed(LAST, lambda one: one[:, 1:]), [], "1 of another shape (head.decoder.layers.2.cls_score"),
    "other class counts": (changed(LAST, lambda one: one[1:]), [], "of another shape"),
    "NaN": (changed(LAST, lambda one: one * torch.nan), [], "NaN"),
    "infinite": (changed(LAST, lambda one: one / 0), [], "infinite"),
    "integers": (changed(LAST, lambda one: one.int()), [], "head.decoder.layers.2.cls_score.weight"),
    "too few names": (dict, ["--classes", "a", "b"], "--classes: 2 names for a model with 3 classes"),
    "a repeated name": (dict, ["--classes", "a", "b", "a"], "--classes: names on the command line: 'a' is repeated"),
    "Objects365 as COCO": (of_objects365, ["--classes", "a", "b"], "2 names for a model with 365 classes"),
    "Objects365, old embedding": (of_objects365, [], "head.denoising_embed.weight [4, 128] instead of [366, 128]"),
    "said to be another size": (dict, ["--model", "dfine_m"], "does not fit dfine's dfine_m"),
    "said to be another detector": (dict, ["--model", "gfl"], "dfine has no such model"),
    "said to be nothing known": (dict, ["--model", "dfine_xxl"], "unknown"),
}


def said(capsys: pytest.CaptureFixture[str], path: Path, out: Path, *more: str) -> str:
    """The one line of an import that fails."""
    code = main(["import", str(path), "--out", str(out), *more])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert code == 2, err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert not out.exists()
    return lines[0]


QUICK = {"another size", "NaN", "Objects365 as COCO"}


@pytest.mark.parametrize("what", with_slow(list(CONTENTS), set(CONTENTS) - QUICK))
def test_wrong_contents(what: str, state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, more, expected = CONTENTS[what]
    save_file({name: one.contiguous() for name, one in change(state).items()}, tmp_path / "model.safetensors")
    assert expected in said(capsys, tmp_path / "model.safetensors", tmp_path / "ours.pt", *more)


@pytest.mark.parametrize(
    "what", ["cut safetensors", "cut pth", "empty", "text", "a folder", "nothing there", "code", "no tensors"]
)
def test_broken_files(what: str, state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ("model.safetensors" if "safetensors" in what else "model.pth")
    if what == "a folder":
        path.mkdir()
    elif what == "cut safetensors":
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif what in {"empty", "text"}:
        path.write_text("" if what == "empty" else "version https://git-lfs.github.com/spec/v1\n")
    elif what != "nothing there":
        torch.save({"cut pth": state, "code": Code(), "no tensors": {"model": {}}}[what], path)
        path.write_bytes(path.read_bytes()[: 100_000 if what == "cut pth" else None])
    assert path.name in said(capsys, path, tmp_path / "ours.pt")
    assert not Path("/tmp/tldet-ran").exists()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("model.head.decoder.points=[3,6]", "decoder.points has length 2, not 3"),
        ("model.head.decoder.heads=7", "must be a multiple of"),
        ("model.head.decoder.eval_layers=9", "model.head.decoder.eval_layers"),
        ("model.head.decoder.refinement=x", "refinement"),
        ("model.head.settings.class_loss=focal", "class_loss"),
        ("model.head.settings.num_dn_queries=-1", "num_dn_queries"),
        ("model.head.settings.score_thr=2", "score_thr"),
        ("model.neck.out_channels=30", "out_channels"),
        ("model.neck.blocks=x", "blocks"),
    ],
)
def test_wrong_settings(
    option: str, expected: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["finetune", "--data", str(digits), "--out", str(tmp_path / "out"), "--model", "dfine_lite0"]
    assert main([*given, "--steps", "1", "--cfg-options", option]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert expected in lines[0]
