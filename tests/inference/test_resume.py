"""Results files: killed runs resume, shards merge, and both give the results of one run."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.inference.predict_slowly import Sees
from tests.inference.stand import Stand
from tests.inference.test_outputs import film, image
from tldet.cli.main import main
from tldet.errors import ConfigError, DataError
from tldet.workflows.predict.jsonl import JsonlWriter, scan_results
from tldet.workflows.predict.merge_results import merge_results
from tldet.workflows.predict.predict import predict
from tldet.workflows.predict.shards import Shard, shard_of

KILLS = 10


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    found = Sees(0.0)
    monkeypatch.setattr("tldet.workflows.predict.predict.load", lambda *_, **__: found)
    return found


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file in place of a checkpoint, whose hash the results state."""
    path = tmp_path / "c.pt"
    path.write_bytes(b"weights")
    return path


def write_images(folder: Path, count: int) -> Path:
    """Small images of three shapes whose first pixel is random; one cannot be read."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    for number in range(count):
        shape = [(24, 40), (40, 24), (33, 70)][number % 3]
        pixels = np.full((*shape, 3), random.integers(0, 256, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:05d}.png"), pixels)
    (folder / "00003b.png").write_bytes(b"broken")
    return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def started(checkpoint: Path, given: Sequence[object], seconds: float) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    command = [sys.executable, "-m", "tests.inference.predict_slowly", str(seconds), "predict", str(checkpoint)]
    return subprocess.Popen([*command, *map(str, given)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def killed_at(checkpoint: Path, given: Sequence[object], results: Path, lines: int, seconds: float) -> None:
    """Run until the results file has some more lines, and kill the process at once."""
    before = results.read_bytes().count(b"\n") if results.exists() else 0
    process = started(checkpoint, given, seconds)
    while process.poll() is None and (not results.exists() or results.read_bytes().count(b"\n") < before + lines):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "killed before its end"


def check_killed_and_resumed(tmp_path: Path, checkpoint: Path, count: int, seconds: float) -> None:
    folder, whole, parts = write_images(tmp_path / "in", count), tmp_path / "whole", tmp_path / "parts"
    predict(checkpoint, folder, json=whole / "r.json", coco=whole / "c.json", csv=whole / "r.csv")
    results = parts / "r.jsonl"
    given = [folder, "--jsonl", results, "--json", parts / "r.json", "--coco", parts / "c.json", "--resume"]
    given += ["--csv", parts / "r.csv"]
    random = np.random.default_rng(1)
    for _ in range(KILLS):
        killed_at(checkpoint, given, results, int(random.integers(2, max(3, count // (KILLS + 2)))), seconds)
        with results.open("ab") as file:  # as if the system had written a part of the next line only
            file.write(b'{"path": "in/000'[: int(random.integers(0, 15))])
    done = (
        sum("detections" in line for line in lines_of(results)[1:] if line) if not scan_results(results).torn else None
    )
    process = started(checkpoint, given, 0.0)
    output, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert done is None or 0 < done < count
    for name in ("r.json", "c.json", "r.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    paths = [line["path"] for line in lines_of(results) if "detections" in line]
    assert len(paths) == len(set(paths)) == count
    assert "already done" in output


def check_three_shards(tmp_path: Path, checkpoint: Path, count: int) -> None:
    folder, out = write_images(tmp_path / "in", count), tmp_path / "out"
    predict(checkpoint, folder, json=out / "whole.json", coco=out / "whole_coco.json")
    for number in (1, 2, 3):
        predict(checkpoint, folder, jsonl=out / "r.jsonl", shard=f"{number}/3")
    shards = [out / f"r.{number}-of-3.jsonl" for number in (3, 1, 2)]
    merged = merge_results(shards, json=out / "m.json", coco=out / "m_coco.json", jsonl=out / "m.jsonl")
    assert (merged.images, merged.missing, merged.repeated, len(merged.failed)) == (count, 0, 0, 1)
    assert (out / "m.json").read_bytes() == (out / "whole.json").read_bytes()
    assert (out / "m_coco.json").read_bytes() == (out / "whole_coco.json").read_bytes()
    again = merge_results(out / "m.jsonl", json=out / "again.json")
    assert again == merged
    assert (out / "again.json").read_bytes() == (out / "whole.json").read_bytes()


def test_a_killed_run_resumes_to_the_results_of_one_run(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    check_killed_and_resumed(tmp_path, checkpoint, 120, 0.02)


@pytest.mark.slow
def test_five_thousand_images_killed_and_resumed(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    check_killed_and_resumed(tmp_path, checkpoint, 5000, 0.0)


def test_three_shards_are_one_run(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    check_three_shards(tmp_path, checkpoint, 100)


@pytest.mark.slow
def test_three_shards_of_five_thousand_images(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    check_three_shards(tmp_path, checkpoint, 5000)


def test_a_detector_killed_and_in_shards(run: Path, digits: Path, tmp_path: Path) -> None:
    """A real detector: the same detections, up to the rounding of batches of other sizes."""
    out, given = tmp_path / "out", {"score": 0.01, "precision": "fp32"}
    predict(run / "best.pt", digits / "test", json=out / "whole.json", **given)  # type: ignore[arg-type]
    for number in (1, 2):
        predict(run / "best.pt", digits / "test", jsonl=out / "r.jsonl", shard=f"{number}/2", **given)  # type: ignore[arg-type]
    merge_results([out / "r.1-of-2.jsonl", out / "r.2-of-2.jsonl"], json=out / "m.json")
    whole, merged = (json.loads((out / name).read_text()) for name in ("whole.json", "m.json"))
    assert len(whole) == len(merged) > 0
    for one, other in zip(whole, merged, strict=True):
        assert all(one[name] == other[name] for name in ("file_name", "image_id", "category_id"))
        np.testing.assert_allclose([*one["bbox"], one["score"]], [*other["bbox"], other["score"]], atol=0.02)


def test_all_outputs_of_a_resumed_run_with_a_video(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a.png", "b.jpg", "x/a.png"):
        image(folder / name)
    film(folder / "v.mp4", 9)
    stand.predict = Stand([[1.0, 1.0, 9.0, 9.0]], [0]).predict  # type: ignore[method-assign]
    names = ("json", "coco", "csv")
    predict(checkpoint, folder, **{name: tmp_path / "one" / name for name in names}, crops=tmp_path / "one" / "crops")
    results = tmp_path / "r.jsonl"
    predict(checkpoint, folder, jsonl=results)
    kept = [line for line in lines_of(results) if "run" in line or line.get("frame", 9) < 4 or "b.jpg" in line["path"]]
    kept = [line for line in kept if "frames" not in line]
    results.write_text("".join(json.dumps(line) + "\n" for line in kept))
    more = {name: tmp_path / "two" / name for name in names}
    summary = predict(checkpoint, folder, jsonl=results, resume=True, crops=tmp_path / "two" / "crops", **more)
    assert (summary.images, summary.frames, summary.resumed) == (2, 9, 1), "the video is predicted again"
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    again = predict(checkpoint, folder, jsonl=results, resume=True, overwrite=True, **more)
    assert (again.images, again.frames, again.resumed) == (0, 0, 4)
    assert (tmp_path / "one" / "json").read_bytes() == (tmp_path / "two" / "json").read_bytes()


def test_new_images_are_added_and_failed_ones_tried_again(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    folder, results = tmp_path / "in", tmp_path / "r.jsonl"
    image(folder / "b.png")
    (folder / "c.png").write_bytes(b"broken")
    assert list(predict(checkpoint, folder, jsonl=results).failed) == [str(folder / "c.png")]
    for name in ("a.png", "c.png"):
        image(folder / name)
    summary = predict(checkpoint, folder, jsonl=results, json=tmp_path / "r.json", resume=True)
    assert (summary.images, summary.resumed, summary.failed) == (2, 1, {})
    assert scan_results(results).failed == {}
    records = json.loads((tmp_path / "r.json").read_text())
    assert records == json.loads(json.dumps(sorted(records, key=lambda one: one["image_id"])))


def test_a_run_that_ended_is_not_repeated_even_if_it_found_nothing(
    stand: Stand, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(checkpoint), str(image(tmp_path / "a.png")), "--jsonl", str(tmp_path / "r.jsonl")]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "already exists; choose another path" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    told = capsys.readouterr()
    assert "1 input done, 0 remaining" in told.err
    assert "0 images, 0 detections" in told.out
    assert "1 input already done" in told.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 0.7}, r"score 0\.7 \(file: 0\.3\)"),
        ({"tiles": 64}, r"tiles 64 \(file: None\)"),
        ({"shard": "1/1", "nms_per_class": False}, r"nms-per-class False \(file: None\)"),
    ],
)
def test_another_run_is_not_resumed(
    stand: Stand, tmp_path: Path, checkpoint: Path, change: dict[str, Any], message: str
) -> None:
    path = image(tmp_path / "a.png")
    predict(checkpoint, path, jsonl=tmp_path / "r.jsonl")
    before = (tmp_path / "r.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"r\.jsonl: cannot be resumed because the settings differ: " + message):
        predict(checkpoint, path, jsonl=tmp_path / "r.jsonl", resume=True, **change)
    checkpoint.write_bytes(b"other weights")
    with pytest.raises(DataError, match="the settings differ: checkpoint-sha256"):
        predict(checkpoint, path, jsonl=tmp_path / "r.jsonl", resume=True)
    assert (tmp_path / "r.jsonl").read_bytes() == before


def test_damaged_results_files(
    stand: Stand, tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, results = write_images(tmp_path / "in", 5), tmp_path / "r.jsonl"
    predict(checkpoint, folder, jsonl=results)
    whole = results.read_bytes()
    results.write_bytes(whole[:-7])
    assert predict(checkpoint, folder, jsonl=results, resume=True).images == 1
    assert "incomplete last line removed" in caplog.text
    assert set(results.read_bytes().splitlines()) == set(whole.splitlines())
    results.write_bytes(whole.replace(b'"detections"', b"detections", 1))
    with pytest.raises(DataError, match=r"r\.jsonl: line \d is damaged"):
        predict(checkpoint, folder, jsonl=results, resume=True)
    results.write_text('{"a": 1}\n')
    with pytest.raises(DataError, match=r"r\.jsonl: is not a JSON Lines file of tldet predict"):
        merge_results(results, json=tmp_path / "r.json")


def test_a_run_that_does_not_begin_leaves_the_results(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    path, results = image(tmp_path / "a.png"), tmp_path / "r.jsonl"
    given: dict[str, Any] = {"annotations": tmp_path / "a.json", "jsonl": results}
    annotations = {"images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps({**annotations, "categories": [{"id": 1, "name": "fish"}]}))
    for overwrite in (False, True):
        with pytest.raises(DataError, match="share no class"):
            predict(checkpoint, path, overwrite=overwrite, **given)
        assert not results.exists()
    predict(checkpoint, path, jsonl=results)
    before = results.read_bytes()
    with pytest.raises(DataError, match="share no class"):
        predict(checkpoint, path, overwrite=True, **given)
    assert results.read_bytes() == before


def test_two_processes_do_not_write_one_file(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    writer = JsonlWriter(tmp_path / "r.jsonl", resume=True)
    try:
        with pytest.raises(DataError, match=r"r\.jsonl: is being written by another process"):
            predict(checkpoint, image(tmp_path / "a.png"), jsonl=tmp_path / "r.jsonl", resume=True)
    finally:
        writer.close()


def test_a_full_disk_is_one_line(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "r.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"r\.jsonl: cannot be written"):
        predict(checkpoint, image(tmp_path / "a.png"), jsonl=tmp_path / "r.jsonl", overwrite=True)


def test_what_is_missing_is_not_merged_silently(
    stand: Stand, tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_images(tmp_path / "in", 7)
    for number in (1, 2):
        predict(checkpoint, folder, jsonl=tmp_path / "r.jsonl", shard=f"{number}/2")
    first, second = tmp_path / "r.1-of-2.jsonl", tmp_path / "r.2-of-2.jsonl"
    with pytest.raises(DataError, match="shard 2 of 2 is missing; --partial"):
        merge_results(first, csv=tmp_path / "r.csv")
    first.write_text("".join(first.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"r\.1-of-2\.jsonl: 1 of 4 inputs not predicted yet"):
        merge_results([first, second], csv=tmp_path / "r.csv")
    merged = merge_results([first, second, second], csv=tmp_path / "r.csv", partial=True)
    assert (merged.images + len(merged.failed), merged.missing) == (7, 1)
    assert merged.repeated == sum("detections" in line for line in lines_of(second))
    assert "not predicted yet" in caplog.text
    predict(checkpoint, folder, jsonl=tmp_path / "other.jsonl", score=0.6)
    with pytest.raises(DataError, match=r"other\.jsonl: belongs to another run"):
        merge_results([first, tmp_path / "other.jsonl"], json=tmp_path / "r.json")
    with pytest.raises(DataError, match="no output: use --json"):
        merge_results([first, second])


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (None, {}, Shard(1, 1)),
        ("3/16", {}, Shard(3, 16)),
        ("1/1", {"RANK": "2", "WORLD_SIZE": "4"}, Shard(1, 1)),
        (None, {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Shard(3, 4, 1, "RANK, WORLD_SIZE")),
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Shard(1, 2, 0, "SLURM_PROCID, SLURM_NTASKS")),
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "5"}, Shard(1, 1)),
        (
            None,
            {"SLURM_PROCID": "7", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "3"},
            Shard(8, 8, 3, "SLURM_PROCID, SLURM_NTASKS"),
        ),
    ],
)
def test_shard_of_a_process(text: str | None, environment: dict[str, str], expected: Shard) -> None:
    assert shard_of(text, environment) == expected


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/4", ""])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard must be K/N"):
        shard_of(text, {})


def test_ranks_that_are_none() -> None:
    with pytest.raises(ConfigError, match="RANK=4 and WORLD_SIZE=4 are not a shard"):
        shard_of(None, {"RANK": "4", "WORLD_SIZE": "4"})


def test_every_input_is_in_one_shard() -> None:
    items = list(range(50))
    parts = [Shard(number, 7).of(items) for number in range(1, 8)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_command_of_a_rank_takes_its_part(
    stand: Stand, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "in", 6)
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main(["predict", str(checkpoint), str(folder), "--jsonl", str(tmp_path / "r.jsonl")]) == 0
    assert main(["predict", str(checkpoint), str(folder), "--json", str(tmp_path / "r.json")]) == 2
    assert "error: --json: shard 2/2 (from RANK, WORLD_SIZE)" in capsys.readouterr().err
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    files = [str(tmp_path / f"r.{number}-of-2.jsonl") for number in (1, 2)]
    assert main(["merge-results", *files, "--csv", str(tmp_path / "r.csv")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("6 images, 1 input could not be read; saved to ")
    assert main(["predict", str(checkpoint), str(folder), "--resume"]) == 2
    assert "--resume needs --jsonl FILE" in capsys.readouterr().err


def test_labels_and_crops_of_shards_do_not_replace_each_other(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    for name in ("a.png", "a.jpg", "b/a.png", "c.png"):
        image(tmp_path / "in" / name)
    stand.predict = Stand([[1.0, 1.0, 9.0, 9.0]], [0]).predict  # type: ignore[method-assign]
    listed = []
    for folder, shards in (("one", ["1/1"]), ("two", ["2/2", "1/2"])):
        for shard in shards:
            out = {
                "yolo": tmp_path / folder / "yolo",
                "crops": tmp_path / folder / "crops",
                "out": tmp_path / folder / "o",
            }
            predict(checkpoint, tmp_path / "in", shard=shard, **out)
        found = sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file())
        listed.append([(path.relative_to(tmp_path / folder).as_posix(), path.read_bytes()) for path in found])
    assert listed[0] == listed[1]
    assert len(listed[0]) == 4 * 3 + 1


def test_parquet(stand: Stand, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = write_images(tmp_path / "in", 9)
    monkeypatch.setattr("tldet.workflows.predict.formats._ROWS", 4)
    predict(checkpoint, folder, parquet=tmp_path / "r.parquet", csv=tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert len(table) == len(rows) > 4
    assert [{name: str(value) for name, value in row.items()} for row in table] == rows


def test_parquet_needs_its_package(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tldet.workflows.predict.formats.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'tldet\[parquet\]'"):
        predict("c.pt", image(tmp_path / "a.png"), parquet=tmp_path / "r.parquet")


def test_results_of_a_stopped_run_are_resumed(stand: Stand, tmp_path: Path, checkpoint: Path) -> None:
    folder = write_images(tmp_path / "in", 12)
    real = stand.predict

    def predict_and_stop(images: Any, *_: object) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(images)

    stand.predict = predict_and_stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt, match="stopped after 4 images"):
        predict(checkpoint, folder, jsonl=tmp_path / "r.jsonl")
    stand.predict = real  # type: ignore[method-assign]
    assert predict(checkpoint, folder, jsonl=tmp_path / "r.jsonl", resume=True).images == 8
