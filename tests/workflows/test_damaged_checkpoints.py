"""Checkpoints with damaged or unusual tensors, and devices without values, through commands: one line, exit code 2."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tldet import checkpoint
from tldet.cli.main import main
from tldet.data.digits import generate_crops
from tldet.integrity import LOCAL_HEADER

COMMANDS = {
    "predict": "predict {bad} {digits}/test --out {out} --json {out}.json",
    "test": "test {bad} --json {out}.json",
    "--weights": "finetune --data {digits} --weights {bad} --model retinanet_lite0 --steps 1 --out {out}",
    "--init-from": "finetune --data {digits} --init-from {bad} --steps 1 --out {out}",
    "train --init-from": "train {run}/config.py --work-dir {out} --init-from {bad}",
    "extend": "extend {bad} --data {digits} --steps 1 --out {out}",
    "export": "export {bad} --format onnx --out {out}",
}


@pytest.fixture(scope="module")
def copied(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(run / "best.pt", tmp_path_factory.mktemp("copied") / "best.pt"))


def spans(path: Path) -> dict[str, tuple[int, int]]:
    """Start and size of the entries of an archive with tensors, by name."""
    found = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            file.seek(entry.header_offset)
            _, *lengths = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            found[entry.filename] = entry.header_offset + LOCAL_HEADER.size + sum(lengths), entry.file_size
    return found


def flip(path: Path, position: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.fixture(params=["first", "largest", "last"])
def damaged(copied: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A checkpoint of a run in which the lowest bit of one number of one tensor is flipped."""
    tensors = [span for name, span in spans(copied).items() if "/data/" in name and span[1] >= 64]
    largest = max(tensors, key=lambda span: span[1])
    start, size = {"first": tensors[0], "largest": largest, "last": tensors[-1]}[request.param]
    position = start + size // 8 * 4
    flip(copied, position)
    yield copied
    flip(copied, position)


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def refused(command: str, names: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which a command ends that must not begin."""
    code = main([word.format(**names) for word in command.split()])
    printed, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "error:" in line]
    assert code == 2, err
    assert printed.strip() == ""
    assert len(lines) == 1, err
    assert err.rstrip().splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_flipped_bit_of_a_run_is_found_by_every_command(
    damaged: Path, digits: Path, run: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"bad": damaged, "digits": digits, "run": run, "out": tmp_path / "out"}
    line = refused(COMMANDS[name], names, capsys)
    assert f"{damaged}: is " in line
    assert "damaged or cut off" in line or "broken or cut off" in line
    assert files(tmp_path) == [], "nothing is begun"


def test_the_undamaged_copy_is_read(copied: Path, run: Path) -> None:
    """The other tests restore it."""
    assert copied.read_bytes() == (run / "best.pt").read_bytes()
    checkpoint.load_checkpoint(copied)


def form(kind: str, tensor: torch.Tensor) -> torch.Tensor:
    if kind == "quantized":
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
    return tensor.to_sparse() if kind == "sparse" else tensor.to("meta")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "words"),
    [("sparse", "is sparse"), ("meta", "(it was saved from the meta device)"), ("quantized", "is quantized")],
)
def test_tensors_that_are_not_plain(
    run: Path, digits: Path, tmp_path: Path, kind: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state: dict[str, Any] = torch.load(run / "best.pt", weights_only=True)
    section = "ema" if state.get("ema") else "model"
    name = next(name for name, tensor in state[section].items() if tensor.ndim == 4)
    state[section][name] = form(kind, state[section][name])
    torch.save(state, tmp_path / "bad.pt")
    names = {"bad": tmp_path / "bad.pt", "digits": digits, "run": run, "out": tmp_path / "out"}
    for command in ("predict", "test", "--weights", "--init-from"):
        line = refused(COMMANDS[command], names, capsys)
        assert f"{tmp_path / 'bad.pt'}: tensor " in line
        assert name in line
        assert words in line
    assert files(tmp_path) == ["bad.pt"]


@pytest.mark.parametrize(
    "command",
    [
        "finetune --data {digits} --out {out} --device meta",
        "train {run}/config.py --work-dir {out} --device meta",
        "pretrain --data {crops} --out {out} --device meta",
        "extend {run}/best.pt --train {new} --images {digits}/train --out {out} --device meta",
        "test {run}/best.pt --device meta --json {out}.json",
        "predict {run}/best.pt {digits}/test --device meta --out {out}",
        "finetune --data {digits} --out {out} --cfg-options training.device=meta",
    ],
)
def test_a_device_without_values(
    command: str, run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops = generate_crops(tmp_path / "crops", train=60, val=20, side=32) if "{crops}" in command else None
    capsys.readouterr()
    names: dict[str, Any] = {"run": run, "digits": digits, "out": tmp_path / "out", "crops": crops}
    names["new"] = tmp_path / "new.json"
    names["new"].write_text(
        (digits / "train" / "_annotations.coco.json").read_text().replace('"name": "', '"name": "new ')
    )
    line = refused(command, names, capsys)
    assert line.endswith("must be auto, cpu, cuda, cuda:N or mps")
    assert " meta: " in line
    assert files(tmp_path / "out") == []
