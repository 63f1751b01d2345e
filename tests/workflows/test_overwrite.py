"""No command replaces an existing file, or writes to a used folder, without ``--overwrite``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision

from tests.tools import no_longer_than
from tldet.cli.main import main

COMMANDS = {
    "test --json": "test {run}/best.pt --json {file}",
    "test --results": "test {run}/best.pt --results {file}",
    "evaluate --json": "evaluate --gt {gt} --dt {dt} --json {file}",
    "evaluate --per-image": "evaluate --gt {gt} --dt {dt} --per-image {file}",
    "import": "import {foreign} --out {file}",
    "report --out": "report --gt {gt} --dt {dt} --out {file}",
    "report --json": "report --gt {gt} --dt {dt} --out {new}/r.html --json {file}",
    "report --tables": "report --gt {gt} --dt {dt} --out {new}/r.html --tables {folder}",
    "report --save-thresholds": "report {run}/best.pt --out {new}/r.html --save-thresholds {file}",
    "report --save-temperature": "report {run}/best.pt --out {new}/r.html --save-temperature {file}",
    "compare": "compare {dt} {dt2} --gt {gt} --out {file}",
    "compare --json": "compare {dt} {dt2} --gt {gt} --out {new}/c.html --json {file}",
    "check --json": "check {digits} --json {file}",
    "check --html": "check {digits} --html {file}",
    "check --fix": "check {gt} --fix {file}",
    "browse": "browse {digits} --count 2 --html {file}",
    "models": "models --detectors --json {file}",
    "predict": "predict {run}/best.pt {digits}/test --json {file}",
    "predict --crops": "predict {run}/best.pt {digits}/test --crops {folder}",
}
SLOW = {"import", "models", "check --html", "compare --json", "report --json", "report --save-temperature"}


@pytest.fixture(scope="module")
def given(digits: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Inputs of the commands."""
    folder = tmp_path_factory.mktemp("given")
    gt = digits / "test" / "_annotations.coco.json"
    boxes = json.loads(gt.read_text(encoding="utf-8"))["annotations"]
    records = [{**{key: one[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.5} for one in boxes]
    for name, found in (("dt.json", records), ("dt2.json", records[1:])):
        (folder / name).write_text(json.dumps(found), encoding="utf-8")
    torch.manual_seed(0)
    model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(model.state_dict(), folder / "foreign.pth")
    paths = {"dt": folder / "dt.json", "dt2": folder / "dt2.json", "foreign": folder / "foreign.pth"}
    return {**paths, "gt": gt, "digits": digits, "run": run}


@pytest.mark.parametrize(
    "command",
    [pytest.param(words, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, words in COMMANDS.items()],
)
def test_an_existing_output_is_replaced_only_with_the_option(
    command: str, given: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "existing", tmp_path / "used"
    folder.mkdir()
    for path in (file, folder / "notes.txt"):
        path.write_bytes(b"of the user")
    words = command.format(**given, file=file, folder=folder, new=tmp_path / "new").split()
    with no_longer_than(60):
        assert main(words) == 2
    told = capsys.readouterr()
    used = (folder, "is not empty; choose another folder, or write to it")
    named, how = used if str(folder) in words else (file, "already exists; choose another path, or replace it")
    assert told.err.splitlines()[-1] == f"tldet {words[0]}: error: {named}: {how} with --overwrite"
    assert (file.read_bytes(), (folder / "notes.txt").read_bytes()) == (b"of the user",) * 2
    assert main([*words, "--overwrite"]) == 0
    assert (file.read_bytes() != b"of the user") == (named == file)
    assert (folder / "notes.txt").read_bytes() == b"of the user"
