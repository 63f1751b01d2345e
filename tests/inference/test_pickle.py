"""Predictors in other processes: pickled, as Ray Data's class, and on exported files."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tldet
from tests import forked
from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.inference.predictor import Predictor
from tldet.inference.ray_data import RayPredictor
from tldet.system.device import cpu_has_bf16

ROOT = Path(__file__).resolve().parents[2]


def images(digits: Path) -> list[Path]:
    return sorted((digits / "test").glob("*.jpg"))


def boxes(predictor: Predictor, path: Path) -> list[Any]:
    return predictor.predict(path, 0.01).boxes.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "precision", ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not cpu_has_bf16(), reason="needs bf16"))]
)
def test_a_predictor_is_the_same_after_pickling(run: Path, digits: Path, precision: str) -> None:
    predictor = tldet.load(run / "best.pt", precision=precision, tiles=80)
    again = pickle.loads(pickle.dumps(predictor))
    assert (again.tiling, again.category_ids, repr(again)) == (
        predictor.tiling,
        predictor.category_ids,
        repr(predictor),
    )
    for path in images(digits)[:2]:
        one, other = predictor.predict(path, 0.01), again.predict(path, 0.01)
        assert len(one) > 0
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("processes", [forked, pytest.param(multiprocessing, marks=pytest.mark.slow)])
def test_predictors_in_two_other_processes(run: Path, digits: Path, processes: Any) -> None:
    predictor = tldet.load(run / "best.pt", precision="fp32")
    paths = images(digits)[:4]
    with processes.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(boxes, [(predictor, path) for path in paths])
    assert all(found)
    for one, path in zip(found, paths, strict=True):
        np.testing.assert_allclose(one, boxes(predictor, path), atol=0.01)


def test_an_exported_predictor_is_pickled_by_its_path(run: Path, digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    tldet.export(run / "best.pt", "onnx", out=tmp_path)
    predictor = tldet.load(next(tmp_path.glob("*.onnx")))
    again = pickle.loads(pickle.dumps(predictor))
    path = images(digits)[0]
    assert torch.equal(again.predict(path, 0.01).boxes, predictor.predict(path, 0.01).boxes)


@pytest.mark.parametrize("form", ["path", "bytes", "array"])
def test_columns_of_images_become_columns_of_detections(run: Path, digits: Path, form: str) -> None:
    predictor, paths = tldet.load(run / "best.pt", precision="fp32"), images(digits)[:3]
    convert = {"path": str, "bytes": Path.read_bytes, "array": read_image}[form]
    column = np.empty(3, object)
    for number, path in enumerate(paths):
        column[number] = convert(path)
    given = {"image": column, "key": np.arange(3)}
    found = RayPredictor(predictor, score=0.01)(given)
    expected = predictor.predict(paths, 0.01)
    assert found["key"].tolist() == [0, 1, 2]
    assert ("image" in found) == (form == "path")
    for row, one in enumerate(expected):
        np.testing.assert_allclose(found["boxes"][row], one.boxes.numpy(), atol=0.02)
        assert found["labels"][row].tolist() == one.labels.tolist()
        assert found["names"][row] == one.names()
    assert found["readable"].all()


def test_rows_that_cannot_be_read(run: Path, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"")
    given = {"path": np.array([str(images(digits)[0]), str(tmp_path / "b.jpg")])}
    options: dict[str, Any] = {"column": "path", "score": 0.01, "precision": "fp32"}
    with pytest.raises(DataError, match=r"b\.jpg: is an empty file"):
        RayPredictor(run / "best.pt", **options)(given)
    found = RayPredictor(run / "best.pt", on_error="skip", **options)(given)
    assert found["readable"].tolist() == [True, False]
    assert len(found["boxes"][0]) > 0
    assert found["boxes"][1].shape == (0, 4)


@pytest.mark.slow
def test_the_example_with_ray(run: Path, digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="needs ray: pip install 'tldet[ray]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    command = [sys.executable, str(ROOT / "examples" / "ray_predict.py"), str(run / "best.pt"), str(digits / "test")]
    done = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    assert sorted(Path(row["path"]).name for row in rows) == [path.name for path in images(digits)]
