"""Pages of ``tldet report``: content and files."""

import json
import re
from pathlib import Path

import pytest

from tests.evaluation.errors.made import grid_truth, noisy
from tests.workflows.report.written import write_files
from tldet.errors import ConfigError, DataError
from tldet.workflows.evaluate import evaluate
from tldet.workflows.report.command import report
from tldet.workflows.report.compare import compare
from tldet.workflows.report.report import Report

COUNT = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A folder with the page, the files and the inputs of a report."""
    folder = tmp_path_factory.mktemp("report")
    truth = grid_truth(COUNT)
    gt, dt = write_files(folder, truth, noisy(truth, 1, 0.2))
    found = report(gt=gt, dt=dt, out=folder / "page.html", tables=folder / "files", json=folder / "all.json")
    return folder, found


def test_numbers_are_those_of_evaluate(made: tuple[Path, Report]) -> None:
    folder, found = made
    expected = evaluate(folder / "gt.json", folder / "dt.json")
    stored = json.loads((folder / "all.json").read_text())
    assert {name: stored["summary"][name] for name in ("AP", "AP50", "AR100")} == {
        name: getattr(expected, name) for name in ("AP", "AP50", "AR100")
    }
    assert stored["summary"]["APl"] is None  # no large object
    classes = {row[0]: row[3] for row in stored["tables"]["classes"]["rows"]}
    assert classes == expected.per_class
    assert stored["summary"]["AP_low"] < expected.AP < stored["summary"]["AP_high"]
    assert found.summary == stored["summary"]


def test_page_loads_nothing(made: tuple[Path, Report]) -> None:
    page = (made[0] / "page.html").read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"']?(https?:)?//", page)
    assert "@import" not in page
    assert page.count("<section") == len(made[1].sections)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "NaN" not in re.sub(r"<script>.*", "", page, flags=re.DOTALL)


def test_every_table_and_plot_is_a_file(made: tuple[Path, Report]) -> None:
    folder, found = made
    names = {path.name for path in (folder / "files").iterdir()}
    tables = {f"{table.name}.{kind}" for table in found.tables for kind in ("csv", "tex", "json")}
    assert names == tables | {f"{plot.name}.{kind}" for plot in found.plots for kind in ("svg", "png")}
    head, *rows = (folder / "files" / "tide.csv").read_text().splitlines()
    assert head == "type,AP lost,errors,meaning"
    assert len(rows) == 8
    assert all(plot.xlabel and plot.ylabel for plot in found.plots)


def test_wrong_arguments(made: tuple[Path, Report], tmp_path: Path) -> None:
    gt, dt = made[0] / "gt.json", made[0] / "dt.json"
    with pytest.raises(ConfigError, match="specify a checkpoint, or --gt and --dt"):
        report(gt=gt)
    with pytest.raises(ConfigError, match="--save-temperature need a checkpoint"):
        report(gt=gt, dt=dt, save_temperature=tmp_path / "new.pt")
    with pytest.raises(ConfigError, match="at least two"):
        compare([dt], gt=gt)
    with pytest.raises(DataError, match="no such image directory"):
        report(gt=gt, dt=dt, images=tmp_path / "missing", out=tmp_path / "page.html")
    with pytest.raises(DataError, match="is an input"):
        report(gt=gt, dt=dt, out=dt)
