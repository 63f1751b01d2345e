"""The layers of DESIGN: a file imports from its own folder or from lower layers, never sideways."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "tldet"
LAYERS = [
    {
        "errors",
        "inputs",
        "coco",
        "labelled",
        "labels",
        "masks",
        "rle",
        "structures",
        "registry",
        "plugins",
        "search_path",
        "signals",
        "config",
        "checkpoint",
        "integrity",
        "locks",
        "streams",
        "cache",
        "device",
        "output",
        "wording",
        "html",
        "selection",
        "visualize",
    },
    {"data", "models", "evaluation"},
    {"transfer"},
    {"engine"},
    {"workflows", "inference", "export"},
    {"benchmarks", "cli", "commands", "quickstart"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FLAT = LAYERS[0] | LAYERS[-1]  # files, not folders: they may import each other


def place_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return Path(parts[0]).stem


def imports_of(source: str) -> set[str]:
    """The tldet parts a file imports, wherever in it the import stands."""
    parts: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        modules: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules = [f"{node.module}.{alias.name}" if node.module == "tldet" else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        parts |= {module.split(".")[1] for module in modules if module.startswith("tldet.")}
    return parts


def complaint(place: str, part: str) -> str | None:
    if part == place or part not in LEVEL:
        return None
    if LEVEL[part] > LEVEL[place]:
        return f"{place} imports {part} from a higher layer"
    if LEVEL[part] == LEVEL[place] and part not in FLAT:
        return f"{place} imports {part} sideways"
    return None


FILES = [path for path in sorted(ROOT.rglob("*.py")) if place_of(path) != "__init__"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    place = place_of(path)
    assert place in LEVEL or place == "__main__", f"{place} has no layer"
    wrong = [complaint(place, part) for part in sorted(imports_of(path.read_text(encoding="utf-8")))]
    assert [line for line in wrong if line] == []


@pytest.mark.parametrize(
    ("place", "source", "expected"),
    [
        ("models", "from tldet.data.coco import CocoDataset", "models imports data sideways"),
        ("data", "import tldet.engine.trainer", "data imports engine from a higher layer"),
        ("engine", "from tldet import checkpoint", None),
        ("config", "def f():\n    from tldet.models import heads", "config imports models from a higher layer"),
    ],
)
def test_the_check_can_fail(place: str, source: str, expected: str | None) -> None:
    wrong = [complaint(place, part) for part in imports_of(source)]
    assert next((line for line in wrong if line), None) == expected


def test_heads_do_not_import_heads() -> None:
    heads = [path for path in (ROOT / "models" / "heads").glob("*.py") if path.stem not in ("__init__", "base")]
    others = {f"tldet.models.heads.{path.stem}" for path in heads}
    for path in heads:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & others, path.name
    assert len(heads) >= 7


def test_a_head_is_whole_in_one_file_of_at_most_350_lines() -> None:
    for path in (ROOT / "models" / "heads").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path.name
