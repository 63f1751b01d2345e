"""Damaged weights are recognized: flipped bits, exchanged entries, NaN, other kinds of numbers and tensors."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tldet import checkpoint, integrity
from tldet.errors import CheckpointError
from tldet.transfer.safe_unpickle.archives import read_archive
from tldet.transfer.sources import read_weights_file


def state(**changes: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    model = {"conv.weight": torch.randn(30, 20), "norm.num_batches_tracked": torch.tensor(3)}
    optimizer = {"state": {0: {"exp_avg": torch.randn(30, 20)}}, "param_groups": [{"lr": 0.1}]}
    meta = {"class_names": ["a", "b"], "category_ids": [1, 2], "input": {"short": 64, "long": 64}}
    whole = {"model": model, "ema": {"conv.weight": torch.randn(30, 20)}, "training": {"optimizer": optimizer}}
    return {"config": {}, "meta": meta, **whole, **changes}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return bool(torch.equal(one, two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return bool(one == two)


def flipped(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, state())
    whole, expected = path.read_bytes(), checkpoint.load_checkpoint(path)
    random = np.random.default_rng(0)
    found = 0
    for position, bit in random.integers(0, [len(whole), 8], (200, 2)).tolist():
        path.write_bytes(flipped(whole, position, bit))
        try:
            assert same(checkpoint.load_checkpoint(path), expected), f"bit {bit} of byte {position}"
        except CheckpointError:
            found += 1
    assert found > 100


@pytest.mark.parametrize("section", ["model", "ema", "training"])
def test_a_flipped_bit_of_a_tensor_is_found_by_every_reader(tmp_path: Path, section: str) -> None:
    path, whole = tmp_path / "a.pt", state()
    checkpoint.save(path, whole)
    tensor = whole["training"]["optimizer"]["state"][0]["exp_avg"] if section == "training" else whole[section]
    bytes_of = (tensor if isinstance(tensor, Tensor) else tensor["conv.weight"]).numpy().tobytes()
    start = path.read_bytes().index(bytes_of)
    path.write_bytes(flipped(path.read_bytes(), start + 100, 0))
    with pytest.raises(CheckpointError, match=r"a\.pt: is damaged or cut off \(entry archive/data/\d does not match"):
        checkpoint.load_checkpoint(path)
    if section != "training":
        archive = read_archive(path)
        with pytest.raises(CheckpointError, match="CRC"):
            archive.tensors(archive.value[section])


def rewritten(path: Path, change: Any) -> None:
    """Write the entries anew, as other programs do, with valid CRC-32s."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in change(entries).items():
            file.writestr(name, content)


def exchanged(entries: dict[str, bytes]) -> dict[str, bytes]:
    one, two = (
        name for name, content in entries.items() if "/data/" in name and len(content) == 2400 and name[-1] in "02"
    )
    return {**entries, one: entries[two], two: entries[one]}


@pytest.mark.parametrize(
    "change",
    [
        exchanged,
        lambda entries: {name: flipped(e, 5, 1) if name.endswith("data/0") else e for name, e in entries.items()},
        lambda entries: {name: e for name, e in entries.items() if not name.endswith("data/2")},
        lambda entries: {**entries, "archive/data/9": b"more"},
    ],
    ids=["exchanged", "changed", "removed", "added"],
)
def test_entries_are_those_that_were_saved(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, state())
    rewritten(path, lambda entries: entries)
    assert same(checkpoint.load_checkpoint(path)["model"], state()["model"]), "written anew with the same content"
    rewritten(path, change)
    for read in (checkpoint.load_checkpoint, read_archive):
        with pytest.raises(CheckpointError, match="its entries do not match its checksum"):
            read(path)


def test_a_checkpoint_changed_by_its_user_is_read(tmp_path: Path) -> None:
    """A file of plain ``torch.save`` has no digest, as those of older versions."""
    path = tmp_path / "a.pt"
    checkpoint.save(path, state())
    changed = torch.load(path, weights_only=True)
    changed["model"]["conv.weight"].zero_()
    torch.save(changed, path)
    assert not checkpoint.load_checkpoint(path)["model"]["conv.weight"].any()


def test_torch_reads_a_sealed_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, state())
    for mapped in (False, True):
        assert same(torch.load(path, weights_only=True, mmap=mapped)["model"], state()["model"])
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None


def test_safetensors_have_a_checksum(tmp_path: Path) -> None:
    path, tensors = tmp_path / "a.safetensors", {"b": torch.randn(40), "a": torch.arange(3, dtype=torch.int8)}
    checkpoint.save_weights(path, tensors, {"made": "of"})
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["made"] == "of"
    assert same(load_file(path), tensors)
    assert same(dict(read_weights_file(path)), tensors)
    whole = path.read_bytes()
    start = int.from_bytes(whole[:8], "little") + 8
    for position in range(start, len(whole), 7):
        path.write_bytes(flipped(whole, position, 3))
        with pytest.raises(CheckpointError, match=r"a\.safetensors: .*its tensors do not match its checksum"):
            read_weights_file(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("location", "name"),
    [
        (("model", "conv.weight"), "model.conv.weight"),
        (("ema", "conv.weight"), "ema.conv.weight"),
        (("training", "optimizer", "state", 0, "exp_avg"), "optimizer.state.0.exp_avg"),
    ],
)
def test_values_are_finite(tmp_path: Path, location: tuple[Any, ...], name: str, value: float) -> None:
    whole = state()
    tensor: Any = whole
    for key in location:
        tensor = tensor[key]
    tensor[-1, -1] = value
    checkpoint.save(checkpoint.step_path(tmp_path, 2), whole)
    with pytest.raises(CheckpointError, match=rf"02\.pt: tensor {name} contains NaN or infinite values"):
        checkpoint.load_checkpoint(checkpoint.step_path(tmp_path, 2))
    checkpoint.save(checkpoint.step_path(tmp_path, 1), state())
    newest = checkpoint.newest_readable(tmp_path)
    assert newest is not None
    assert newest[0].name == "step_00000001.pt", "the one before it is resumed"


def quantized() -> Tensor:
    return torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)


def nested() -> Tensor:
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


SAVED_FROM_META = "(it was saved from the meta device)"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "problem", "form"),
    [
        (lambda: torch.eye(3).to_sparse(), "tensor {name} is sparse (sparse_coo)", "sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "tensor {name} is sparse (sparse_csr)", "sparse"),
        (
            lambda: torch.empty(3, device="meta"),
            f"tensor {{name}} has no values {SAVED_FROM_META}",
            f"without values {SAVED_FROM_META}",
        ),
        (quantized, "tensor {name} is quantized", "quantized"),
        (
            nested,
            "contains objects that could run code (torch._utils._rebuild_nested_tensor); it was not loaded",
            "nested",
        ),
    ],
    ids=["coo", "csr", "meta", "quantized", "nested"],
)
@pytest.mark.parametrize("section", ["model", "ema", "other"])
def test_tensors_are_plain(tmp_path: Path, tensor: Any, problem: str, form: str, section: str) -> None:
    path = tmp_path / "a.pt"
    torch.save({"format": "tldet", "version": 1, **state(), section: {"w": tensor()}}, path)
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load_checkpoint(path)
    assert str(raised.value) == f"{path}: {problem.format(name=f'{section}.w')}"
    archive = read_archive(path)
    with pytest.raises(CheckpointError) as raised:
        archive.tensors(archive.value[section])
    assert str(raised.value) == f"{path}: tensor w is {form}; save it as a plain tensor"


OWN = {"w": torch.zeros(2), "n": torch.tensor(0), "b": torch.tensor(True), "x.num_batches_tracked": torch.tensor(0)}


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("w", torch.zeros(2, dtype=torch.bfloat16), ""),
        ("w", torch.zeros(2, dtype=torch.float64), ""),
        ("w", torch.zeros(2, dtype=torch.float8_e4m3fn), ""),
        ("w", torch.tensor([1, 2]), "w is integer (torch.int64), in the model floating-point (torch.float32)"),
        ("w", torch.tensor([1, 2], dtype=torch.uint8), "w is integer"),
        ("w", torch.tensor([True, False]), "w is boolean"),
        ("w", torch.zeros(2, dtype=torch.complex64), "w is complex"),
        ("w", torch.tensor([1.0, float("nan")]), "w contains NaN"),
        ("w", torch.tensor([float("-inf"), 0.0], dtype=torch.float16), "w contains NaN"),
        ("w", torch.tensor([float("nan")] * 2).to(torch.float8_e4m3fn), "w contains NaN"),
        ("w", torch.zeros(0), ""),
        ("w", torch.zeros(2, device="meta"), "w has no values"),
        ("n", torch.tensor(1.0), "n is floating-point"),
        ("n", torch.tensor(1, dtype=torch.int32), ""),
        ("b", torch.tensor(1), "b is integer"),
        ("x.num_batches_tracked", torch.tensor(3.0, dtype=torch.float16), ""),
        ("unknown", torch.tensor([1]), ""),
        ("w", "text", ""),
    ],
)
def test_problems_of_a_tensor(name: str, tensor: Any, problem: str) -> None:
    found = integrity.problem_of(OWN, {name: tensor})
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_containers_that_hold_each_other_are_walked_once() -> None:
    nested: Any = [torch.zeros(1)]
    for _ in range(60):
        nested = [nested, nested]
    nested.append(nested)
    deep: Any = torch.ones(1)
    for _ in range(5000):
        deep = [deep]
    assert len(list(integrity.named_tensors([nested, deep]))) == 2
