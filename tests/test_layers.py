"""The layers of DESIGN: a file imports from its own folder or from lower layers, never sideways."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "tldet"
LAYERS = [
    {"runtime"},
    {"errors", "text"},
    {"system"},
    {"structures", "registry", "plugins", "components"},
    {"coco", "config", "checkpoint", "integrity", "visualize"},
    {"data", "models", "evaluation"},
    {"transfer"},
    {"engine"},
    {"inference"},
    {"exporting"},
    {"workflows"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FLAT = {path.stem for path in ROOT.glob("*.py")}  # files, not folders: those of one layer may import each other
ON_CALL = {("structures", "visualize"), ("structures", "coco")}  # within Detections.draw and Detections.save


def place_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return Path(parts[0]).stem


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def imports_of(source: str) -> set[str]:
    """The tldet parts a file imports, wherever in it the import stands."""
    parts: set[str] = set()
    for node in ast.walk(parsed(source)):
        modules: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules = [f"{node.module}.{alias.name}" if node.module == "tldet" else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        parts |= {module.split(".")[1] for module in modules if module.startswith("tldet.")}
    return parts


def complaint(location: str, part: str) -> str | None:
    if part == location or part not in LEVEL or (location, part) in ON_CALL:
        return None
    if LEVEL[part] > LEVEL[location]:
        return f"{location} imports {part} from a higher layer"
    if LEVEL[part] == LEVEL[location] and part not in FLAT:
        return f"{location} imports {part} sideways"
    return None


FILES = [path for path in sorted(ROOT.rglob("*.py")) if place_of(path) != "__init__"]


def test_imports_go_down() -> None:
    wrong = []
    for path in FILES:
        location = place_of(path)
        assert location in LEVEL or location == "__main__", f"{location} has no layer"
        lines = [complaint(location, part) for part in sorted(imports_of(path.read_text(encoding="utf-8")))]
        wrong += [f"{path.relative_to(ROOT)}: {line}" for line in lines if line]
    assert wrong == []


@pytest.mark.parametrize(
    ("location", "source", "expected"),
    [
        ("models", "from tldet.data.dataset import CocoDataset", "models imports data sideways"),
        ("data", "import tldet.engine.trainer", "data imports engine from a higher layer"),
        ("engine", "from tldet import checkpoint", None),
        ("config", "def f():\n    from tldet.models import heads", "config imports models from a higher layer"),
    ],
)
def test_the_check_can_fail(location: str, source: str, expected: str | None) -> None:
    wrong = [complaint(location, part) for part in imports_of(source)]
    assert next((line for line in wrong if line), None) == expected


def test_heads_do_not_import_heads() -> None:
    heads = [path for path in (ROOT / "models" / "heads").glob("*.py") if path.stem not in ("__init__", "base")]
    others = {f"tldet.models.heads.{path.stem}" for path in heads}
    for path in heads:
        tree = parsed(path.read_text(encoding="utf-8"))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & others, path.name
    assert len(heads) >= 7


def test_a_file_has_at_most_250_lines_and_a_head_350() -> None:
    for path in ROOT.rglob("*.py"):
        limit = 350 if path.parent.name == "heads" else 250
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, path.relative_to(ROOT)


def test_the_training_engine_has_at_most_12_files() -> None:
    assert len([path for path in (ROOT / "engine").glob("*.py") if path.name != "__init__.py"]) <= 12


def graph() -> dict[str, set[str]]:
    """The modules that each module imports, wherever in it, except for types."""
    paths = {".".join(("tldet", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    return {name: modules_in(path.read_text(encoding="utf-8"), set(paths)) - {name} for name, path in paths.items()}


def modules_in(source: str, known: set[str]) -> set[str]:
    found: set[str] = set()
    waiting: list[ast.AST] = [parsed(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {one if one in known else node.module for one in (f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found & known


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules in import cycles and above them, by removing modules without imports repeatedly."""
    left = dict(graph)
    while leaves := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in leaves:
            del left[name]
    return sorted(left)


def test_no_import_cycles() -> None:
    whole = graph()
    assert cycle_in(whole) == []
    assert len(whole) > 150


def test_a_cycle_is_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\ndef f():\n    from a import b\n"
    assert modules_in(source, {"a", "a.b"}) == {"a.b"}


def test_exceptions_are_imported_on_call_only() -> None:
    for location, part in ON_CALL:
        for path in (ROOT / location).rglob("*.py"):
            top = [node for node in parsed(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
            assert not [node.module for node in top if (node.module or "").startswith(f"tldet.{part}")], path.name


def test_the_package_imports_no_sibling_folder() -> None:
    outside = {"benchmarks", "tests", "examples", "tools"}
    for path in FILES:
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not {name.partition(".")[0] for name in names} & outside, path.relative_to(ROOT)


OTHER_JSON = {  # modules that decode JSON which is not a COCO document, and what it is
    "runtime/metadata.py": "metadata of an exported network",
    "integrity.py": "header of a safetensors file",
    "engine/loggers.py": "ids of logger runs",
    "engine/logging.py": "log lines",
    "workflows/extend/report.py": "extend.json",
    "workflows/training/resume_checks.py": "arguments.json",
    "workflows/training/status.py": "status.json",
    "workflows/serve/inputs.py": "body of a request",
    "workflows/predict/jsonl.py": "lines of detections",
    "workflows/models.py": "config of a detector, as a cache key",
    "workflows/check/cross_validation.py": "split_report.json",
    "workflows/study/workers.py": "error of a worker process",
    "workflows/study/job.py": "settings and results of study runs",
    "data/generated.py": "settings of a generated dataset",
    "data/merge/writing.py": "texts of single records that coco/raw.py split, to change their ids",
    "visualize/curves.py": "log lines",
    "system/downloads.py": "state of a download",
    "system/cache.py": "cached results",
    "transfer/class_match.py": "map of class names",
}
DECODERS = ("json.loads", "json.load", "json.JSONDecoder", "msgspec.json.decode", "msgspec.json.Decoder")


def decodes_json(source: str) -> bool:
    return any(isinstance(node, ast.Attribute) and ast.unparse(node) in DECODERS for node in ast.walk(parsed(source)))


def test_coco_json_is_decoded_in_one_place() -> None:
    others = [path for path in FILES if place_of(path) != "coco" and decodes_json(path.read_text(encoding="utf-8"))]
    assert {path.relative_to(ROOT).as_posix() for path in others} == set(OTHER_JSON)
    assert decodes_json("import json\ndef f(path):\n    return json.loads(path.read_bytes())['images']")
    assert not decodes_json("import json\nx = json.dumps([])")


REPEATED = {"log"}  # public names that files define each for themselves: the logger of a module


def public_names(source: str) -> set[str]:
    """Return the public classes, functions, constants and type aliases that a file defines at its top level."""
    names: set[str] = set()
    for node in parsed(source).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        assigned = node.targets if isinstance(node, ast.Assign) else []
        assigned = [node.target] if isinstance(node, ast.AnnAssign) else assigned
        for target in assigned:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            names |= {part.id for part in parts if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")} - REPEATED


def defined_twice(sources: dict[str, str]) -> dict[str, list[str]]:
    """Return the public names that several files define, with the files."""
    places: dict[str, list[str]] = {}
    for place, source in sources.items():
        for name in public_names(source):
            places.setdefault(name, []).append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_a_public_name_is_defined_once() -> None:
    paths = [path for path in FILES if place_of(path) != "cli"]  # all commands have arguments() and run()
    sources = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    assert defined_twice(sources) == {}
    assert len(sources) > 400


def test_a_second_definition_is_found() -> None:
    sources = {"a.py": "class Window: ...\ndef _f(): ...", "b.py": "def Window(): ...\ndef _f(): ...", "c.py": "x = 1"}
    assert defined_twice(sources) == {"Window": ["a.py", "b.py"]}
    sources = {"a.py": "A, _B = 1, 2\nlog = 3", "b.py": "A: int = 1\n_B = 2\nlog = 3", "c.py": "d['A'] = 1"}
    assert defined_twice(sources) == {"A": ["a.py", "b.py"]}
