"""Every command that trains prints the image folder of every split."""

from __future__ import annotations

from pathlib import Path

import pytest

from tldet.cli.main import main

SMALL = ["--cfg-options", "data.loader.batch_size=2", "training.precision=fp32"]


@pytest.mark.parametrize("command", ["train", "finetune", "study"])
def test_the_image_folder_of_every_split_is_printed(
    digits: Path, run: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(digits), "--out", str(tmp_path / "o"), "--model", "retinanet_lite0", "--steps", "1", *SMALL]
    calls = {
        "train": ["train", str(run / "config.py"), "--work-dir", str(tmp_path / "o"), *SMALL, "schedule.steps=0"],
        "finetune": ["finetune", *given],
        "study": ["study", "transfer", "--variants", "finetuned", "--seeds", "0", *given],
    }
    assert main(calls[command]) == 0
    lines = " ".join(capsys.readouterr().err.split())
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        (text,) = [part for part in lines.split(f"{split}: ")[1:] if part[0].isdigit() and " images, " in part[:12]]
        assert f"; images in {digits / folder}" in text.split("test: ")[0][:400]
