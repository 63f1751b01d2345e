"""External code: imported on request only, and what goes wrong is one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tldet import plugins
from tldet.cli.main import main
from tldet.components import needed_imports, require_components
from tldet.config import Config
from tldet.config.check import ComponentType, validate_config
from tldet.errors import CheckpointError, ConfigError
from tldet.plugins import import_named, import_plugins, lookup
from tldet.registry import HEADS, TRANSFORMS

PART = """
from tldet.registry import TRANSFORMS
@TRANSFORMS.register_module()
def {name}(image, target, rng, amount: float = 1.0):
    return image, target
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_search_path_stays_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "FOLDERS", [])
    (folder / "plug_path.py").write_text("import plug_path_helper")
    (folder / "plug_path_helper.py").write_text(PART.format(name="plug_path_step"))
    before = list(sys.path)
    import_named(["plug_path"], "config.py")
    assert sys.path == before
    assert [str(folder)] == plugins.FOLDERS
    with plugins.search_folders():  # in which worker processes start
        assert sys.path == [*before, str(folder)]
    assert sys.path == before


def test_a_module_in_the_searched_folder(folder: Path) -> None:
    (folder / "plug_a.py").write_text(PART.format(name="plug_a_step"))
    import_plugins(["plug_a"])
    assert lookup(TRANSFORMS, "plug_a_step") is not None
    section = {"type": "plug_a_step", "amount": 2.0}
    config = {"data": {"train": {"type": "CocoDataset", "transforms": [section]}}}
    assert needed_imports(config) == ["plug_a"]


def test_a_file_by_path_and_a_package(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    location = tmp_path_factory.mktemp("location")
    (location / "plug_b.py").write_text(PART.format(name="plug_b_step"))
    (location / "plug_c").mkdir()
    (location / "plug_c" / "__init__.py").write_text("from plug_c import inner")
    (location / "plug_c" / "inner.py").write_text(PART.format(name="plug_c_step"))
    import_plugins([str(location / "plug_b.py"), str(location / "plug_c")])
    config = {
        "data": {"val": {"type": "CocoDataset", "transforms": [{"type": "plug_c_step"}, {"type": "plug_b_step"}]}}
    }
    assert needed_imports(config) == ["plug_b", "plug_c"], "the package, not its inner module"


def test_a_plugin_in_another_folder_is_not_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "other").mkdir()
    monkeypatch.chdir(folder / "other")
    (folder / "plug_d.py").write_text("")
    with pytest.raises(ConfigError, match="--import plug_d: no module named plug_d"):
        import_plugins(["plug_d"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import no_such_library", "needs no_such_library, which is not installed"),
        ("x = 1\nraise ValueError('oh no')", "cannot be imported: ValueError: oh no"),
        ("def f(:", "cannot be imported: SyntaxError"),
    ],
)
def test_errors_of_a_module(folder: Path, content: str, message: str) -> None:
    name = f"plug_bad_{abs(hash(content))}"
    (folder / f"{name}.py").write_text(content)
    with pytest.raises(ConfigError) as raised:
        import_plugins([name])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["1x", "a b", "../nowhere.py", "a..b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ConfigError):
        import_plugins([name])


@pytest.mark.parametrize("imports", ["own_parts", [1], {"a": 1}])
def test_imports_of_a_config_are_names(imports: Any) -> None:
    with pytest.raises(ConfigError, match="imports: must be a list of module names"):
        import_named(imports, "config.py")


def test_a_checkpoint_does_not_import(folder: Path) -> None:
    (folder / "plug_e.py").write_text("raise SystemExit('imported')")
    state = {"config": {"model": {"head": {"type": "HeadOfE"}}}, "meta": {"imports": ["plug_e", "x; y", 3]}}
    with pytest.raises(CheckpointError) as raised:
        require_components("best.pt", state, "model")
    assert "needs external code (head 'HeadOfE')" in str(raised.value)
    assert str(raised.value).endswith("add --import plug_e (in Python: import plug_e)")
    assert "plug_e" not in sys.modules
    require_components("best.pt", state, "data")  # of which nothing is missing


def test_entry_points(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    (folder / "plug_f.py").write_text(PART.format(name="plug_f_step"))
    (folder / "plug_here.py").write_text(PART.format(name="plug_here_step"))
    monkeypatch.syspath_prepend(folder / "site")
    (folder / "site").mkdir()
    (folder / "plug_f.py").rename(folder / "site" / "plug_f.py")
    names = ("plug_f", "plug_missing", "plug_here")
    points = EntryPoints(EntryPoint(name, name, plugins.GROUP) for name in names)
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.select(group=group))
    plugins.import_entry_points.cache_clear()
    assert lookup(TRANSFORMS, "plug_f_step") is not None
    assert "entry point plug_missing" in caplog.text
    assert "entry point plug_here: plug_here: no module named plug_here" in caplog.text, "not from the current folder"


def test_every_command_takes_import(capsys: pytest.CaptureFixture[str]) -> None:
    from tldet.cli.main import build_parser

    leaves = list(build_parser().leaves())
    assert len(leaves) > 10
    assert all("--import" in leaf.format_help() for leaf in leaves)
    assert main(["evaluate", "--gt", "a.json", "--dt", "b.json", "--import", "plug_none"]) == 2
    assert "--import plug_none: no module named plug_none" in capsys.readouterr().err


def test_an_unknown_type_names_the_way_out() -> None:
    config = Config({"head": {"type": "RetinaHed"}})
    with pytest.raises(ConfigError, match=r"did you mean 'RetinaNetHead'.*--import PACKAGE"):
        validate_config(config, {"head": ComponentType(HEADS)})


def test_the_key_imports_is_known() -> None:
    validate_config(Config({"imports": ["a"]}), {})
    with pytest.raises(ConfigError, match="import: unknown key"):
        validate_config(Config({"import": ["a"]}), {})
