"""examples/own_parts, a package outside tldet: trained, resumed, tested, predicted and studied with its own parts."""

import csv
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import forked

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RECIPE = EXAMPLES / "own_parts" / "recipe.py"
FAST = ["--device", "cpu", "--precision", "fp32", "--batch-size", "4"]


@pytest.fixture(scope="module")
def csvs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated dataset as CSV files, without any COCO JSON."""
    folder = tmp_path_factory.mktemp("csv")
    for split in ("train", "valid"):
        coco = json.loads((digits / split / "_annotations.coco.json").read_text())
        names = {one["id"]: one["name"] for one in coco["categories"]}
        files = {one["id"]: one["file_name"] for one in coco["images"]}
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "x0", "y0", "x1", "y1", "label"])
            for one in coco["annotations"]:
                x, y, width, height = one["bbox"]
                row = [x, y, x + width, y + height, names[one["category_id"]]]
                writer.writerow([f"{split}/{files[one['image_id']]}", *row])
    return folder


def tldet(*words: str | Path, imports: Sequence[str] = ("own_parts",)) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of the examples, where the package is found."""
    options = [word for name in imports for word in ("--import", name)]
    return forked.run(["tldet", *words, *options], cwd=EXAMPLES)


def data(csvs: Path, digits: Path) -> list[str | Path]:
    return ["--train", csvs / "train.csv", "--val", csvs / "valid.csv", "--images", digits]


@pytest.fixture(scope="module")
def trained(csvs: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "run"
    keys = ["--cfg-options", "model.head.score_thr=0.001"]  # after four steps no score is high
    done = tldet(
        "finetune", "--no-report", "--model", RECIPE, *data(csvs, digits), "--out", out, "--steps", "4", *FAST, *keys
    )
    assert done.returncode == 0, done.stderr
    return out


def test_it_trains_and_its_callback_writes(trained: Path) -> None:
    assert (trained / "best.pt").is_file()
    lines = (trained / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,loss_cls,loss_bbox,grad_norm,lr"
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "4"]
    assert "imports = ['own_parts']" in (trained / "config.py").read_text()


def test_the_recipe_keeps_its_dataset_and_transforms(trained: Path) -> None:
    from tldet.config import read_config

    section = read_config(trained / "config.py")["data"]["train"]
    assert section["type"] == "CsvDataset"
    expected = ["Resize", "Rotate180", "swap_channels", "BlendImages", "A.GaussNoise"]
    assert [step["type"] for step in section["transforms"]] == expected


def test_a_checkpoint_names_the_import_that_it_needs(trained: Path, digits: Path) -> None:
    done = tldet("predict", trained / "best.pt", digits / "test", "--json", trained / "never.json", imports=())
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "backbone 'TinyNet', head 'PointHead'" in line
    assert "add --import own_parts (in Python: import own_parts)" in line


def test_predict_and_test(trained: Path, digits: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    done = tldet("predict", trained / "best.pt", digits / "test", "--json", found, "--score", "0.001")
    assert done.returncode == 0, done.stderr
    assert json.loads(found.read_text())
    done = tldet("test", trained / "best.pt", "--json", tmp_path / "ap.json", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    from tldet.transfer.provenance import checkpoint_outline

    stored = checkpoint_outline(trained / "best.pt")["meta"]["trained"]["metrics"]
    assert json.loads((tmp_path / "ap.json").read_text())["AP"] == pytest.approx(stored["AP"], abs=1e-9)


@pytest.mark.parametrize("imports", [("own_parts",), ()])
def test_resume(trained: Path, csvs: Path, digits: Path, tmp_path: Path, imports: Sequence[str]) -> None:
    """The config in the folder of the run names the package, so ``--import`` is not needed."""
    out = tmp_path / "run"
    first = tldet(
        "finetune", "--no-report", "--model", RECIPE, *data(csvs, digits), "--out", out, "--steps", "2", *FAST
    )
    assert first.returncode == 0, first.stderr
    more = ["--cfg-options", "schedule.steps=4"]
    done = tldet("finetune", "--no-report", "--out", out, "--resume", *more, imports=imports)
    assert done.returncode == 0, done.stderr
    steps = [line.split(",")[0] for line in (out / "losses.csv").read_text().splitlines()[1:]]
    assert steps == ["2", "4"]


def test_study(csvs: Path, digits: Path, tmp_path: Path) -> None:
    options = ["--steps", "2", "--seeds", "0", "--fractions", "0.9", "1", *FAST]
    done = tldet("study", "data", "--model", RECIPE, *data(csvs, digits), "--out", tmp_path / "study", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "study" / "results.json").read_text())
    assert report


def rows_of(source: Path, classes: str, path: Path) -> Path:
    """Write the rows of some classes of a CSV file."""
    lines = source.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.rpartition(",")[2] in classes)]) + "\n")
    return path


def test_extend(csvs: Path, digits: Path, tmp_path: Path) -> None:
    """New classes in a user dataset; the old validation data are read with the dataset of the checkpoint."""
    old, new = (
        {part: rows_of(csvs / f"{part}.csv", some, tmp_path / f"{part}_{some}.csv") for part in ("train", "valid")}
        for some in ("01345679", "28")
    )
    given = ["--train", old["train"], "--val", old["valid"], "--images", digits]
    done = tldet("finetune", "--no-report", "--model", RECIPE, *given, "--out", tmp_path / "old", "--steps", "2", *FAST)
    assert done.returncode == 0, done.stderr
    data = ["--train", new["train"], "--val", new["valid"], "--replay", old["train"]]
    base, out = tmp_path / "old" / "best.pt", tmp_path / "new"
    done = tldet("extend", "--no-report", base, *data, "--out", out, "--steps", "2", *FAST)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "extend.json").read_text())
    assert (report["old"], report["new"]) == (list("01345679"), list("28"))
    assert max(report["before"]["AP"].values()) >= 0, "evaluated on the validation data of the original detector"
    assert set(report["after"]["AP"]) == set("0123456789")
    train = json.loads((out / "data" / "train.json").read_text())
    assert len(train["annotations"]) == len((csvs / "train.csv").read_text().splitlines()) - 1
    assert {len(image["labeled_category_ids"]) for image in train["images"]} == {2, 8}
    done = tldet("test", out / "best.pt", "--json", tmp_path / "ap.json", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    mean = json.loads((tmp_path / "ap.json").read_text())["AP"]
    known = [value for value in report["after"]["AP"].values() if value >= 0]
    assert mean == pytest.approx(sum(known) / len(known), abs=1e-9)
    done = tldet("extend", "--no-report", base, "--train", new["train"], "--out", tmp_path / "never", *FAST)
    assert done.returncode == 2
    assert "trained on CsvDataset: use --train and --val (or --data) of this dataset, or --format" in done.stderr


def test_extend_again_and_with_annotation_files(trained: Path, csvs: Path, digits: Path, tmp_path: Path) -> None:
    from tldet.data.shots import write_base

    coco = json.loads((digits / "train" / "_annotations.coco.json").read_text())
    coco["categories"][0]["name"] = "zero"
    (tmp_path / "new.json").write_text(json.dumps(coco))
    names = [one["name"] for one in coco["categories"][1:]]
    write_base(tmp_path / "new.json", names, tmp_path / "zero.json", keep_images=True)
    data = ["--train", tmp_path / "zero.json", "--val", tmp_path / "zero.json", "--images", digits / "train"]
    out = tmp_path / "first"
    done = tldet(
        "extend", "--no-report", trained / "best.pt", *data, "--format", "coco", "--out", out, "--steps", "1", *FAST
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "extend.json").read_text())["new"] == ["zero"]
    more = rows_of(csvs / "train.csv", "4", tmp_path / "more.csv")
    more.write_text(more.read_text().replace(",4\n", ",four\n"))
    data = ["--train", more, "--val", more, "--images", digits]
    done = tldet("extend", "--no-report", out / "best.pt", *data, "--out", tmp_path / "second", "--steps", "1", *FAST)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "second" / "extend.json").read_text())
    assert report["new"] == ["four"]
    val = json.loads((tmp_path / "second" / "data" / "val.json").read_text())
    kinds = {Path(image["file_name"]).parent.name.partition("_")[0] for image in val["images"]}
    assert kinds == {"CsvDataset", "train"}, "images of user datasets, and files"


def test_fewshot(csvs: Path, digits: Path, tmp_path: Path) -> None:
    options = ["--novel", "4", "9", "--shots", "1", "--variants", "full", "--seeds", "0"]
    options += ["--shot-steps", "2", "--steps", "2", *FAST]
    out = tmp_path / "few"
    done = tldet("fewshot", "--model", RECIPE, *data(csvs, digits), "--out", out, *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "fewshot.json").read_text())
    assert [(run["variant"], run["shots"]) for run in report["runs"]] == [("full", 1)]
    assert report["runs"][0]["novel_AP"] >= 0
    assert len(json.loads((out / "data" / "1shot_seed0.json").read_text())["annotations"]) == 10
    base = ["--base", out / "runs" / "base" / "best.pt", "--novel", "4", "9", "--shots", "1", "--variants", "full"]
    images = ["--images", digits]
    given = [
        "--train",
        csvs / "train.csv",
        "--val",
        csvs / "valid.csv",
        *images,
        "--shot-steps",
        "2",
        "--device",
        "cpu",
    ]
    done = tldet("fewshot", *base, *given, "--out", tmp_path / "from_base")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "from_base" / "fewshot.json").read_text())["runs"][0]["novel_AP"] >= 0
    done = tldet("fewshot", *base, *given, "--out", tmp_path / "no", "--on-bad-image", "skip")
    assert done.returncode == 2
    assert "--on-bad-image: is for image files; a user dataset checks its own images" in done.stderr


def test_another_backbone_by_its_registered_name(csvs: Path, digits: Path, tmp_path: Path) -> None:
    train = digits / "train" / "_annotations.coco.json"
    given = ["--train", train, "--images", digits / "train", "--out", tmp_path / "run", "--steps", "1", *FAST]
    done = tldet("finetune", "--no-report", "--model", "retinanet_lite0", "--backbone", "TinyNet", *given)
    assert done.returncode == 0, done.stderr
    from tldet.config import read_config

    section = read_config(tmp_path / "run" / "config.py")["model"]["backbone"]
    assert (section["type"], section["out_strides"]) == ("TinyNet", [8, 16, 32])


SCRIPT = """
import sys
import own_parts, tldet
from tldet.engine.callbacks import Callback
from tldet.workflows.test import test
recipe, train, val, images, out = sys.argv[1:]
class Count(Callback):
    seen = 0
    def after_train_iter(self, trainer, batch_idx, data_batch, outputs):
        self.seen += 1
        assert set(outputs) == {"loss", "losses", "grad_norm", "lr"}
counter = Count()
if __name__ == "__main__":
    options = ["data.loader.batch_size=4", "training.precision=fp32", "training.device=cpu"]
    options += ["model.head.score_thr=0.001"]  # after two steps no score is high
    outcome = tldet.finetune(
        model=recipe, train=train, val=val, images=images, out=out, steps=2, cfg_options=options,
        callbacks=[counter],
    )
    assert counter.seen == 2
    result = test(outcome.checkpoint, precision="fp32", device="cpu")
    assert result.AP == outcome.result.AP
    found = tldet.predict(outcome.checkpoint, images + "/test", score=0.0, json=out + "/found.json", device="cpu")
    assert found.images == 6
    assert found.detections == len(found.records) > 0
    resumed = tldet.finetune(out=out, resume=True, cfg_options=["schedule.steps=4"], callbacks=[counter])
    assert (resumed.train.step, counter.seen) == (4, 4)
    given = {"model": recipe, "train": train, "val": val, "images": images, "out": out + "_study", "steps": 1}
    report = tldet.study("data", **given, fractions=[0.9, 1.0], seeds=[0], cfg_options=options)
    assert sorted(run["fraction"] for run in report.runs) == [0.9, 1.0]
"""


def test_the_same_from_python(csvs: Path, digits: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = [RECIPE, csvs / "train.csv", csvs / "valid.csv", digits, tmp_path / "run"]
    paths = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent)])
    done = forked.run([script, *words], env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr


def test_the_example_keeps_its_promises() -> None:
    lines = {name: len((EXAMPLES / "own_parts" / name).read_text().splitlines()) for name in ("head.py", "dataset.py")}
    assert lines["head.py"] <= 70
    assert lines["dataset.py"] <= 30
