"""Pages that are generated from code contain all of it, and the site builds without a warning or the network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from docs.generate import api, commands, config
from docs.generate.texts import markdown, table
from tests.docs.pages import ROOT
from tldet.cli.main import build_parser
from tldet.runtime.command import command_parser

EXTERNAL = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"(?:https?:)?//", re.IGNORECASE)


def test_every_command_and_option_is_listed() -> None:
    page = commands.page()
    for leaf in (*build_parser().leaves(), command_parser()):
        text = page[page.index(f"\n## {leaf.prog}\n") :].split("\n## ")[1]
        for action in leaf._actions:
            if action.dest != "help":
                assert f"| `{commands.argument(action)}` |".replace("|", "\\|")[2:-2] in text.replace("|", "\\|")


def test_defaults_of_options() -> None:
    page = commands.page()
    assert "| `--model NAME` | faster_rcnn_lite0 | recipe; see tldet models --detectors |" in page
    assert "| `--out DIR` | required | output directory |" in page
    stored = "per-class thresholds that tldet report --save-thresholds stored, else 0.3"
    assert f"| `--score T` | {stored} | score threshold |" in page
    assert "| `--resume` | off |" in page


def test_every_config_key_has_a_type_a_default_and_a_meaning() -> None:
    lines = [line for line in config.page().splitlines() if line.startswith("| `")]
    assert len(lines) > 300
    assert [line for line in lines if re.search(r"\|  \|", line)] == []
    assert [line for line in lines if "<factory>" in line or " object at " in line] == []


def test_every_section_and_component_is_listed() -> None:
    page = config.page()
    for name, part in config.merged(config.sections()).items():
        title = name.replace(".*", ".N")
        assert re.search(rf"^## {re.escape(title)}\b", page, re.MULTILINE)
        for component in config.own_components(part.target) if hasattr(part.target, "module_dict") else ():
            assert f"\n### {component}\n" in page


def test_meanings_that_refer_to_another_class_are_filled_in() -> None:
    from tldet.models.backbones.timm_nets import TimmBackbone

    found = {one.name: one for one in config.keys(TimmBackbone)}
    assert found["name"].default == "required"
    assert "BatchNorm" in found["norm"].meaning
    assert found["norm"].type == "'frozen', 'eval', 'batch'"


def test_every_public_name_is_listed() -> None:
    import tldet

    page = api.page()
    assert [name for name in tldet.__all__ if f"tldet.{name}" not in page] == []


def test_roles_become_code() -> None:
    text = "see :class:`~tldet.models.boxes.AnchorGenerator` and ``x``, :func:`tldet.load`"
    assert markdown(text) == "see `AnchorGenerator` and `x`, `tldet.load`"
    assert table(["a"], [["x|y\nz"]]) == "| a |\n| --- |\n| x\\|y z |\n"


def _visible(page: Path) -> str:
    """The text of a page without its tags."""
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("costs", ["replaced", pytest.param("counted", marks=pytest.mark.slow)])
def test_the_site_builds_strictly_and_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, costs: str
) -> None:
    """As ``mkdocs build --strict`` builds it, in this process; counting the multiply-adds of all recipes takes long."""
    if costs == "replaced":
        monkeypatch.setattr("tldet.workflows.models._cost", lambda *_: (12_345_678, 9_876_543_210))
    monkeypatch.setattr(sys, "path", [*sys.path])
    settings = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path))
    settings.plugins.on_startup(command="build", dirty=False)
    monkeypatch.chdir(ROOT)
    build(settings)
    pages = list(tmp_path.rglob("*.html"))
    assert {"index.html", "config.html", "commands.html", "api.html"} <= {page.name for page in pages}
    assert [page for page in pages if EXTERNAL.search(page.read_text(encoding="utf-8"))] == []
    assert "class CsvDataset" in _visible(tmp_path / "extending.html"), "the files of the example package are missing"
    text = (tmp_path / "reference" / "api.html").read_text(encoding="utf-8")
    assert "batch_size" in text[text.index('id="tldet.finetune"') :].split('id="tldet.load"')[0]
