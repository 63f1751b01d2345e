#!/usr/bin/env python3
"""Move the code of tldet into the layout of DESIGN section 2: ``python move.py CHECKOUT`` in a clean checkout.

Standard library only; ruff (the checkout's own) sorts imports and formats afterwards. Nothing is committed. A second
run fails: the old modules are gone. What the script cannot handle is printed at the end; the exit code is 1 if the tree
cannot be right without it, else 0.

The mapping (old module -> new module; both below ``tldet.`` unless they begin with ``=``). A module whose old name is
gone from main is skipped and listed; a new module of main stays where it is, except in a folder of FOLDERS.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# ---------------------------------------------------------------------------------------------------------------- table
FOLDERS = {  # whole folders: a module that MOVES does not name follows its folder
    "benchmarks": "=benchmarks",
    "commands": "cli",
    "transfer.dialects": "transfer.interop.dialects",
}
MOVES = {
    # command line
    "cli": "cli.main",
    "commands": "cli.commands",
    "commands.benchmark": "=benchmarks.__main__",
    "commands.shared": "cli.arguments",
    "commands.settings": "cli.arguments",
    "commands.suggest": "cli.suggestions",
    "commands.following": "cli.next_commands",
    "streams": "cli.streams",
    # what the package needs of the machine: files, memory, devices, signals
    "inputs": "system.inputs",
    "output": "system.output",
    "cache": "system.cache",
    "locks": "system.locks",
    "search_path": "system.search_path",
    "signals": "system.signals",
    "engine.interrupt": "system.signals",
    "engine.memory": "system.memory",
    "engine.out_of_memory": "system.out_of_memory",
    "device": "system.device",
    # text of messages
    "wording": "text",
    "html": "text",
    # data structures
    "structures": "structures.detections",  # the rest of SYMBOLS
    "selection": "structures.selection",
    "masks": "structures.masks",
    "rle": "structures.rle",
    "labelled": "coco.partial_labels",
    "visualize": "visualize.drawing",
    "labels": "visualize.labels",
    # data
    "data.merge.pictures": "data.merge.images",
    "workflows.data_layout": "data.split_paths",
    # models
    "models.hollow": "models.meta_tensors",
    "models.dense": "models.towers",
    "models.necks": "models.necks.fpn",
    "models.simple_pyramid": "models.necks.simple_pyramid",
    "models.assigners": "models.assigners.atss",
    "models.matching": "models.assigners.matching",
    "models.overlay": "models.surgery.overlay",
    "engine.fuse": "models.surgery.fuse",
    "engine.frozen_norms": "models.surgery.frozen_norms",
    # transfer
    "transfer.archives": "transfer.safe_unpickle.archives",
    "transfer.storages": "transfer.safe_unpickle.storages",
    "transfer.unpickle": "transfer.safe_unpickle.unpickle",
    "transfer.foreign": "transfer.interop.foreign",
    "transfer.wrapped": "transfer.interop.wrapped",
    "transfer.known": "transfer.interop.known",
    "transfer.adapt": "transfer.interop.adapt",
    "transfer.classes": "transfer.interop.classes",
    "transfer.mmdet_config": "transfer.interop.mmdet_config",
    "workflows.mmdet_files": "transfer.interop.mmdet_files",
    "transfer.start": "transfer.initial_weights",
    "transfer.class_rows": "transfer.classifier_weights",
    "transfer.parts_table": "transfer.parameter_table",
    "transfer.cached": "transfer.cached_weights",
    # engine
    "engine.step": "engine.step",
    "engine.feed": "engine.step",
    "engine.schedule": "engine.schedule",
    "engine.budget": "engine.schedule",
    "engine.keeper": "engine.checkpointing",
    "engine.validation": "engine.checkpointing",
    "engine.callbacks": "engine.callbacks",
    "engine.hooks": "engine.callbacks",
    "engine.unfreezing": "engine.regularization",
    "engine.l2_sp": "engine.regularization",
    "engine.ema": "engine.regularization",
    "engine.state": "engine.state",
    "engine.settings": "engine.state",
    "engine.log": "engine.logging",
    "engine.recorder": "engine.logging",
    "engine.precision": "engine.precision",
    "engine.compiling": "engine.precision",
    # workflows
    "quickstart": "workflows.quickstart",
    "workflows.merge": "workflows.merge.merge",
    "workflows.merge_notes": "workflows.merge.notes",
    "workflows.merge_report": "workflows.merge.report",
    "workflows.merge_tables": "workflows.merge.tables",
    "workflows.study.arms": "workflows.study.variants",
    "workflows.study.matrix": "workflows.study.job_queue",
    "workflows.train": "workflows.training.train",
    "workflows.finetune": "workflows.training.finetune",
    "workflows.pretrain": "workflows.training.pretrain",
    "workflows.train_classifier": "workflows.training.train_classifier",
    "workflows.assemble": "workflows.training.assemble",
    "workflows.batch_size": "workflows.training.batch_size",
    "workflows.choose": "workflows.training.choose",
    "workflows.data_summary": "workflows.training.data_summary",
    "workflows.options": "workflows.training.options",
    "workflows.request": "workflows.training.request",
    "workflows.run_options": "workflows.training.run_options",
    "workflows.transfer_options": "workflows.training.transfer_options",
    "workflows.own_data": "workflows.training.custom_data",
    "workflows.parts": "workflows.training.parts",
    "workflows.recipes": "workflows.training.recipes",
    "workflows.run_folder": "workflows.training.run_folder",
    "workflows.runs": "workflows.training.run_config",
    "workflows.same_run": "workflows.training.resume_checks",
    "workflows.start": "workflows.training.initial_weights",
    "workflows.train_report": "workflows.training.report",
    "engine.verdict": "workflows.training.verdict",
}
# Definitions that leave their module: (old module, name) -> new module
SYMBOLS = {
    ("structures", "Size"): "structures.image",
    ("data.images", "Picture"): "structures.image",
    ("structures", "Target"): "structures.target",
    ("device", "Known"): "structures.target",
    ("structures", "Batch"): "structures.batch",
    ("structures", "LabelledBatch"): "structures.batch",
    ("structures", "LabeledBatch"): "structures.batch",  # if it is renamed
    ("data.images", "ImageArray"): "structures.image",
    ("engine.precision", "DEVICES"): "system.device",
    ("engine.precision", "FAULTS"): "system.device",
    ("engine.precision", "pick_device"): "system.device",
    ("engine.precision", "_auto_device"): "system.device",
    ("engine.precision", "_try_out"): "system.device",
}
# The same definition again, in other modules: left out, and imported from there
DUPLICATES = {
    ("masks", "Size"): "structures.image",
    ("rle", "Size"): "structures.image",
    ("coco.checks", "Size"): "structures.image",
    ("data.image_size", "Size"): "structures.image",
    ("evaluation.columns", "Size"): "structures.image",
    ("visualize", "Picture"): "structures.image",
    ("visualize", "ImageArray"): "structures.image",
}
# Names that would collide where modules are joined: (old module, name) -> new name
RENAMES = {
    ("engine.compiling", "FAULTS"): "COMPILE_FAULTS",
    ("engine.compiling", "WORTH_IT"): "COMPILE_WORTH_IT",
    ("engine.compiling", "_measure"): "_measure_both",
}
DOCS = {  # docstrings of joined, split and new modules; None keeps that of the first source
    "cli.arguments": '"""Arguments that several commands take, and the settings they stand for."""',
    "system.signals": '"""The signals that ask a process to stop: stopping without losing work, or leaving them to a parent."""',
    "system.device": '"""Devices: choosing one, and copies and indices for which the host waits as rarely as possible.\n\nA GPU runs behind the host. When the host reads a value from it, such as the number of true entries of a mask, it waits\nuntil the GPU has finished its earlier work, and afterwards the GPU waits for new work.\n"""',
    "text": '"""Text of messages: numbers with their nouns, and tables of HTML for notebooks."""',
    "structures.image": '"""Images in memory, and their size."""',
    "structures.target": '"""The ground truth of an image."""',
    "structures.batch": '"""The images of one training step."""',
    "structures.detections": '"""The detections of an image."""',
    "engine.step": '"""One optimizer step: data, forward, backward, check, clip, update; repeated in smaller parts if memory runs out."""',
    "engine.schedule": '"""Length of training, in epochs, steps or minutes, and the learning-rate factor of every step.\n\nThe factor is a pure function of ``(step, total steps, steps per epoch)``: there is no scheduler state to save, and a\nresumed run cannot differ from an uninterrupted one. A budget of minutes is turned into a number of steps once. It counts\nthe time spent in the loop: loading data, forward, backward, the step; start-up, evaluation and writing checkpoints do\nnot count. The number is stored in the checkpoint, so that a resumed run ends where the uninterrupted one would have.\n"""',
    "engine.callbacks": '"""Callbacks: the base class, its checks, snapshots of the weights, and a file that stops a run.\n\nA callback is an mmengine ``Hook``. Hooks written for mmengine work if they use only the hook points that the trainer has;\na hook with another point is rejected by name.\n"""',
    "engine.regularization": '"""Moving average of the weights, L2-SP, and gradual unfreezing."""',
    "engine.checkpointing": '"""Evaluation during training, and the checkpoints of a run: packed, kept, resumed from."""',
    "engine.state": '"""Settings and state of a training run, and the seeds of its random numbers."""',
    "engine.logging": '"""``log.jsonl``: one JSON object per line, the same in a resumed run as in an uninterrupted one except for ``time``."""',
    "engine.precision": '"""Precision, memory layout and compilation, chosen once from the capabilities of the CPU or GPU and short measurements.\n\nEvery entry point (training, testing, predicting) goes through :func:`choose`. ``training.compile`` runs the parts of a\nmodel through ``torch.compile`` if that is measured to be faster.\n"""',
}
# Packages that are new, with their docstrings
PACKAGES = {
    "=benchmarks": '"""Benchmarks against other packages; run from a checkout with ``python -m benchmarks SUITE``."""',
    "cli": '"""The ``tldet`` command: one file per sub-command."""\n\nfrom tldet.cli.main import entry\n\n__all__ = ["entry"]',
    "system": '"""What the package needs of the machine: files, locks, memory, devices and signals."""',
    "structures": None,  # the docstring of structures.py: the conventions
    "visualize": '"""Drawing of detections and curves."""',
    "models.necks": '"""Feature pyramids between backbone and head."""',
    "models.assigners": '"""Matching of anchors, locations and proposals to objects."""',
    "models.surgery": '"""Changes of a network that is already built: folded normalization, replaced modules."""',
    "transfer.interop": '"""Checkpoints and configs of other toolkits."""',
    "transfer.safe_unpickle": '"""Reading of pickled checkpoints without running code from them."""',
    "workflows.training": '"""Training, fine-tuning and pretraining, start to end."""',
    "workflows.merge": '"""``tldet merge``: several datasets as one."""',
}
BARE = {"cli", "structures", "visualize", "workflows.merge", "models.necks", "models.assigners"}  # packages now
KEPT_TOOLS = {"train", "finetune", "test", "evaluate", "predict"}
TESTS = {  # tests that do not follow their module by name
    "tests/test_cli.py": "tests/cli/test_main.py",
    "tests/test_detections.py": "tests/structures/test_detections.py",
    "tests/test_streams.py": "tests/cli/test_streams.py",
    "tests/test_labelled.py": "tests/coco/test_partial_labels.py",
    "tests/test_visualize.py": "tests/visualize/test_drawing.py",
    "tests/test_wording.py": "tests/test_text.py",
    "tests/workflows/test_merge.py": "tests/workflows/merge/test_merge.py",
    "tests/models/test_overlay.py": "tests/models/surgery/test_overlay.py",
}
STAY = {"tests/engine/test_interrupt.py", "tests/engine/test_out_of_memory.py"}  # tests of the trainer, with its fixtures
# -------------------------------------------------------------------------------------------------------------- end table

LAYER_TEST = '''LAYERS = [
    {"errors", "text"},
    {"system"},
    {"structures", "registry", "plugins"},
    {"coco", "config", "checkpoint", "integrity", "visualize"},
    {"data", "models", "evaluation"},
    {"transfer"},
    {"engine"},
    {"inference"},
    {"export"},
    {"workflows"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FLAT = {path.stem for path in ROOT.glob("*.py")}  # files, not folders: those of one layer may import each other
ON_CALL = {("structures", "visualize"), ("structures", "coco")}  # within Detections.draw and Detections.save
'''
CYCLE_TEST = '''

def graph() -> dict[str, set[str]]:
    """The modules that each module imports, wherever in it, except for types."""
    paths = {".".join(("tldet", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    return {name: modules_in(path.read_text(encoding="utf-8"), set(paths)) - {name} for name, path in paths.items()}


def modules_in(source: str, known: set[str]) -> set[str]:
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
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
    """What is left after modules without imports are removed, again and again: modules in cycles and above them."""
    left = dict(graph)
    while leaves := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in leaves:
            del left[name]
    return sorted(left)


def test_no_import_cycles() -> None:
    assert cycle_in(graph()) == []
    assert len(graph()) > 150


def test_a_cycle_is_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    source = "from typing import TYPE_CHECKING\\nif TYPE_CHECKING:\\n    import a\\ndef f():\\n    from a import b\\n"
    assert modules_in(source, {"a", "a.b"}) == {"a.b"}


def test_exceptions_are_imported_on_call_only() -> None:
    for place, part in ON_CALL:
        for path in (ROOT / place).rglob("*.py"):
            top = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
            assert not [node.module for node in top if (node.module or "").startswith(f"tldet.{part}")], path.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_needs_nothing_beside_it(path: Path) -> None:
    outside = {"benchmarks", "tests", "examples", "tools"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        assert not {name.partition(".")[0] for name in names} & outside
'''
BENCHMARK_MAIN = '''

def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites that the arguments name; returns the exit code: 0, or 2 for bad input."""
    prepare("benchmark")
    parser = Parser(prog="python -m benchmarks", description=SUMMARY)
    arguments(parser)
    args = parser.parse_args(argv)
    from rich.console import Console

    logging.basicConfig(format="%(message)s")
    logging.getLogger("tldet").setLevel(logging.INFO)
    try:
        run(args, Console(soft_wrap=True))
    except TldetError as error:
        sys.stderr.write(f"benchmarks: error: {error}\\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
'''

problems: list[str] = []
notes: list[str] = []


def problem(text: str) -> None:
    problems.append(text)


def dotted(module: str) -> str:
    """The full name of a module of the table."""
    return module[1:] if module.startswith("=") else f"tldet.{module}" if module else "tldet"


class Plan:
    """The table applied to a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.old: dict[str, Path] = {}  # dotted name of each module -> its file, relative
        for path in sorted((root / "tldet").rglob("*.py")):
            relative = path.relative_to(root)
            self.old[".".join(relative.with_suffix("").parts).removesuffix(".__init__")] = relative
        self.packages = {name for name, path in self.old.items() if path.name == "__init__.py"}
        if not (root / "tldet/cli.py").is_file() or not (root / "tldet/commands/__init__.py").is_file():
            sys.exit("move.py: this checkout has the new layout already (there is no tldet/cli.py)")
        for name in [one for one in MOVES if dotted(one) not in self.old]:
            notes.append(f"not on this checkout: {dotted(name)}")
        self.target = {name: self._target(name) for name in self.old}
        present = lambda pair: dotted(pair[0]) in self.old  # noqa: E731
        self.source = {name: (root / path).read_text(encoding="utf-8") for name, path in self.old.items()}
        listed = self.source["tldet.commands"]
        for line in ("    benchmark,\n", '    "benchmark": benchmark,\n'):
            if line not in listed:
                problem(f"tldet/commands/__init__.py: does not contain {line.strip()!r}")
            listed = listed.replace(line, "")
        self.source["tldet.commands"] = listed
        self.trees = {name: ast.parse(text) for name, text in self.source.items()}
        self.defined = {name: names_defined(tree) for name, tree in self.trees.items()}
        self.symbols = {(dotted(m), n): dotted(t) for (m, n), t in SYMBOLS.items() if present((m, n))}
        self.duplicates = {(dotted(m), n): dotted(t) for (m, n), t in DUPLICATES.items() if present((m, n))}
        for key in [k for k in {**self.symbols, **self.duplicates} if k[1] not in self.defined[k[0]]]:
            notes.append(f"not defined any more: {key[0]}.{key[1]}")
            self.symbols.pop(key, None)
            self.duplicates.pop(key, None)
        self.renames = {(dotted(m), n): new for (m, n), new in RENAMES.items() if present((m, n)) and n != new}
        self.split = {m for m, _ in {**self.symbols, **self.duplicates}}

    def _target(self, name: str) -> str:
        short = name.removeprefix("tldet.")
        if short in MOVES:
            return dotted(MOVES[short])
        for folder, new in FOLDERS.items():
            if short == folder or short.startswith(folder + "."):
                return dotted(new) + short[len(folder) :]
        return name

    def resolve(self, module: str, name: str | None) -> tuple[str, str | None]:
        """Where a name of an old module is now; (new module, new name)."""
        if name is None:
            return self.target.get(module, module), None
        key = (module, name)
        if key in self.symbols or key in self.duplicates:
            return {**self.symbols, **self.duplicates}[key], self.renames.get(key, name)
        if module in self.split and name not in self.defined[module]:
            for node in self.trees[module].body:  # imported there, and from there
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tldet"):
                    for alias in node.names:
                        if (alias.asname or alias.name) == name:
                            return self.resolve(node.module or "", alias.name)
        return self.target.get(module, module), self.renames.get(key, name)

    def is_moved(self, module: str) -> bool:
        return module in self.old and (self.target[module] != module or module in self.split)

    def path_of(self, module: str) -> Path:
        """The file of a new module."""
        old = next((self.old[m] for m in self.old if self.target[m] == module), None)
        parts = Path(*module.split("."))
        packages = {dotted(one) for one in PACKAGES}
        keeps_init = old is not None and old.name == "__init__.py" and module not in (dotted("cli.commands"),)
        return parts / "__init__.py" if module in packages or keeps_init else parts.with_suffix(".py")


def names_defined(tree: ast.Module) -> set[str]:
    return {name for node in tree.body for name in defined_by(node)}


def defined_by(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = list(node.targets)
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}


# ------------------------------------------------------------------------------------------------------------- rewriting
IMPORT_TEXT = r"from (tldet(?:\.\w+)*) import (\w+(?: as \w+)?(?:, \w+(?: as \w+)?)*)"
TEXT = re.compile(rf"{IMPORT_TEXT}|\btldet(?:\.[A-Za-z_]\w*)+|\btldet/[\w/]*\w(?:\.py\b)?/?")
QUOTED_PATH = re.compile(r'(?<=["\'])([a-z_0-9]+(?:/[a-z_0-9]+)+)\.py(?=["\'])')


class Rewriter:
    """Rewrites imports and names of modules in one file."""

    def __init__(self, plan: Plan, where: str) -> None:
        self.plan, self.where = plan, where

    def python(self, text: str) -> str:
        """A Python file: imports by syntax, strings and comments by pattern."""
        tree = ast.parse(text)
        starts = line_starts(text)
        aliases: dict[str, str] = {}  # local name -> old module
        edits: list[tuple[int, int, str]] = []
        renamed: dict[str, str] = {}  # local name -> new local name
        extra: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, (ast.ImportFrom, ast.Import)):
                span = (offset(text, starts, node.lineno, node.col_offset), offset(text, starts, node.end_lineno or 0, node.end_col_offset or 0))
                new = self._import(node, tree, aliases, renamed)
                if new is not None:
                    indent = text[starts[node.lineno - 1] : span[0]]
                    joint = "\n" + indent if not indent.strip() else "; "
                    edits.append((*span, joint.join(new)))
                else:
                    edits.append((*span, text[slice(*span)]))
        edits += self._uses(tree, text, starts, aliases, renamed, extra)
        return self._apply(text, edits, extra)

    def _apply(self, text: str, edits: list[tuple[int, int, str]], extra: dict[str, str]) -> str:
        out, at = [], 0
        for start, end, new in sorted(edits):
            out += [self.plain(text[at:start], code=True), new]
            at = end
        out.append(self.plain(text[at:], code=True))
        done = "".join(out)
        for statement in extra.values():  # module imports that split modules need: after the first import of tldet
            match = re.search(r"^(from|import) tldet.*$", done, re.M)
            at = match.start() if match else 0
            done = done[:at] + statement + "\n" + done[at:]
        return done

    def _import(self, node: ast.Import | ast.ImportFrom, tree: ast.Module, aliases: dict[str, str], renamed: dict[str, str]) -> list[str] | None:
        if isinstance(node, ast.Import):
            return self._plain_import(node)
        if node.level or not (node.module or "").startswith("tldet"):
            return None
        module, changed = node.module or "", False
        lines: dict[str, list[str]] = {}
        for alias in node.names:
            whole = f"{module}.{alias.name}"
            is_module = whole in self.plan.old and self.plan.is_moved(whole) and alias.name not in self.plan.defined[module]
            if is_module:
                changed = True
                target = self.plan.target[whole]
                parent, _, leaf = target.rpartition(".")
                local = alias.asname or alias.name
                name = self._local_name(local, leaf, alias, tree)
                if name != local:
                    renamed[local] = name
                if whole in self.plan.split or whole in {m for m, _ in self.plan.renames}:
                    aliases[name if name == local else local] = whole
                lines.setdefault(parent, []).append(leaf if name == leaf else f"{leaf} as {name}")
                continue
            target, name = self.plan.resolve(module, alias.name)
            changed |= (target, name) != (module, alias.name)
            local = alias.asname or alias.name
            plain = local == name and alias.asname is None  # "X as X" re-exports
            lines.setdefault(target, []).append(str(name) if plain else f"{name} as {local}")
        if not changed:
            return None
        return [f"from {parent} import {', '.join(names)}" for parent, names in lines.items()]

    def _plain_import(self, node: ast.Import) -> list[str] | None:
        if not any(self.plan.is_moved(alias.name) for alias in node.names):
            return None
        out = []
        for alias in node.names:
            if alias.asname is None and self.plan.is_moved(alias.name):
                problem(f"{self.where}:{node.lineno}: import {alias.name} without a name: rewrite its uses")
            target = self.plan.target.get(alias.name, alias.name)
            out.append(f"import {target}" + (f" as {alias.asname}" if alias.asname else ""))
        return out

    def _local_name(self, local: str, leaf: str, alias: ast.alias, tree: ast.Module) -> str:
        """Use the new name of the module where no other name is in the way, else keep the old one as an alias."""
        if alias.asname or local == leaf:
            return local
        bound, inside_f = set(), False
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and (not isinstance(node.ctx, ast.Load) or node.id == leaf):
                bound.add(node.id)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                bound.add(node.name)
            elif isinstance(node, ast.alias) and node is not alias:
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.JoinedStr):
                inside_f |= any(isinstance(n, ast.Name) and n.id == local for n in ast.walk(node))
        if local in bound or leaf in bound or inside_f:
            notes.append(f"{self.where}: imports {leaf} as {local}")
            return local
        return leaf

    def _uses(self, tree: ast.Module, text: str, starts: list[int], aliases: dict[str, str], renamed: dict[str, str], extra: dict[str, str]) -> list[tuple[int, int, str]]:
        """Edits of uses of modules: another local name, or another module for what has left a split one."""
        edits = {}

        def use(node: ast.Name, symbol: str | None, name: ast.expr | None = None) -> None:
            new = renamed.get(node.id)
            if node.id in aliases and symbol is not None:
                module = aliases[node.id]
                target = {**self.plan.symbols, **self.plan.duplicates}.get((module, symbol), self.plan.target[module])
                if target != self.plan.target[module]:
                    parent, _, leaf = target.rpartition(".")
                    extra[target] = f"from {parent} import {leaf}"
                    new = leaf
                if name is not None and (module, symbol) in self.plan.renames:
                    start = offset(text, starts, name.lineno, name.col_offset)
                    span = text[start:].index(symbol)
                    edits[start + span] = (start + span, start + span + len(symbol), self.plan.renames[module, symbol])
            if new is not None:
                start = offset(text, starts, node.lineno, node.col_offset)
                edits[start] = (start, start + len(node.id), new)

        strings = {id(n) for f in ast.walk(tree) if isinstance(f, ast.JoinedStr) for n in ast.walk(f)}
        seen: set[int] = set()
        for node in ast.walk(tree):
            if id(node) in strings:
                continue
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                seen.add(id(node.value))
                if (aliases.get(node.value.id), node.attr) in self.plan.renames:
                    problem(f"{self.where}:{node.lineno}: {ast.unparse(node)} has another name now")
                use(node.value, node.attr)
            elif isinstance(node, ast.Call) and len(node.args) >= 2 and isinstance(node.args[0], ast.Name):
                first, second = node.args[:2]
                if isinstance(second, ast.Constant) and isinstance(second.value, str) and second.value.isidentifier():
                    seen.add(id(first))
                    use(first, second.value, second)  # setattr(module, "name", ...)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and id(node) not in seen and id(node) not in strings:
                use(node, None)
        return list(edits.values())

    def plain(self, text: str, *, code: bool = False) -> str:
        """Any text: dotted names, imports in strings and code blocks, paths of files."""

        def new(match: re.Match[str]) -> str:
            found = match.group(0)
            if match.group(1):
                return self._import_in_text(match.group(1), match.group(2), text, match.start())
            return self._path(found) if "/" in found else self._dotted(found, text, match.start(), code)

        text = TEXT.sub(new, text)
        if self.where.startswith("tests/"):
            text = QUOTED_PATH.sub(lambda m: self._quoted(m.group(1)), text)
        return text

    def _import_in_text(self, module: str, names: str, text: str, at: int) -> str:
        lines: dict[str, list[str]] = {}
        for one in names.split(", "):
            name, _, local = one.partition(" as ")
            whole = f"{module}.{name}"
            if self.plan.is_moved(whole) and name not in self.plan.defined.get(module, set()):
                parent, _, leaf = self.plan.target[whole].rpartition(".")
                local = local or name
                lines.setdefault(parent, []).append(leaf if leaf == local else f"{leaf} as {local}")
                continue
            target, new = self.plan.resolve(module, name)
            local = local or name
            lines.setdefault(target, []).append(str(new) if new == local else f"{new} as {local}")
        start = text.rfind("\n", 0, at) + 1
        indent = text[start:at]
        joint = "\n" + indent if not indent.strip() else "; "
        return joint.join(f"from {parent} import {', '.join(given)}" for parent, given in lines.items())

    def _dotted(self, found: str, text: str, at: int, code: bool) -> str:
        parts = found.split(".")
        for count in range(len(parts), 1, -1):
            module, rest = ".".join(parts[:count]), parts[count:]
            if module not in self.plan.old:
                continue
            short = module.removeprefix("tldet.")
            if not rest and short == "structures" or not rest and short in BARE and not code:
                if code and text[at - 1 : at] in ("'", '"'):
                    problem(f"{self.where}: the module {module} is split: which part does this string mean?")
                return module
            if not rest and short == "cli":
                return module
            target, name = self.plan.resolve(module, rest[0] if rest else None)
            return ".".join([target, *([str(name)] if name else []), *rest[1:]])
        return found

    def _path(self, found: str) -> str:
        tail = "/" if found.endswith("/") else ".py" if found.endswith(".py") else ""
        module = found.removesuffix("/").removesuffix(".py").replace("/", ".")
        if module not in self.plan.old:
            return found
        if not tail and module in self.plan.packages or tail == "/":
            return self.plan.target[module].replace(".", "/") + tail
        return self.plan.path_of(self.plan.target[module]).as_posix() if tail else self.plan.target[module].replace(".", "/")

    def _quoted(self, path: str) -> str:
        module = "tldet." + path.replace("/", ".")
        if module not in self.plan.old:
            return path + ".py"
        return self.plan.target[module].removeprefix("tldet.").replace(".", "/") + ".py"


def line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def offset(text: str, starts: list[int], line: int, column: int) -> int:
    """Character offset of a position that ast gives in UTF-8 bytes."""
    start = starts[line - 1]
    content = text[start : starts[line]] if line < len(starts) else text[start:]
    return start + len(content.encode()[:column].decode())


# ----------------------------------------------------------------------------------------------------- joining, splitting
LOGGERS = {"log", "logger"}  # each module has its own


class Piece:
    """A top-level statement of a module with the comments above it."""

    def __init__(self, text: str, node: ast.stmt) -> None:
        self.text, self.node, self.names = text, node, defined_by(node)
        self.used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        self.used |= {w for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str) and len(n.value) < 200 for w in re.findall(r"\w+", n.value)}


class Pieces:
    """A module taken apart."""

    def __init__(self, text: str) -> None:
        self.doc, self.imports, self.types, self.body = "", [], [], []
        lines = text.splitlines(keepends=True)
        end = 0
        for number, node in enumerate(ast.parse(text).body):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            source = "".join(lines[first - 1 : node.end_lineno])
            above = "".join(lines[end : first - 1]).strip("\n")
            end = node.end_lineno or 0
            if number == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                self.doc = source.rstrip("\n")
            elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
                continue
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self.imports.append(source)
            elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                self.types += ["".join(lines[one.lineno - 1 : one.end_lineno]) for one in node.body]
            else:
                above = above.strip("\n")
                self.body.append(Piece((above + "\n" if above else "") + source, node))


def rename_tokens(text: str, names: dict[str, str]) -> str:
    """Rename top-level names of a module wherever they stand as a name."""
    if not names:
        return text
    pattern = re.compile(rf"(?<![\w.\"'])({'|'.join(map(re.escape, names))})(?![\w\"'])")
    return pattern.sub(lambda m: names[m.group(1)], text)


def assemble(plan: Plan, target: str, sources: list[str], rewritten: dict[str, str], docs: dict[str, str]) -> str:
    """The text of a module joined from (parts of) others."""
    doc, imports, types, first, constants, body = docs.get(target, ""), [], [], [], [], []
    seen: dict[str, str] = {}
    homes = {**plan.symbols, **plan.duplicates}
    everything = [(m, piece) for m in sources for piece in parts_of(plan, m, target, rewritten)]
    functions = {n for _, p in everything for n in p.names if not isinstance(p.node, (ast.Assign, ast.AnnAssign))}
    for module in sources:
        pieces = Pieces(rewritten[module])
        doc = doc or pieces.doc
        imports += pieces.imports
        types += pieces.types
        mine = parts_of(plan, module, target, rewritten)
        elsewhere = {}
        for name in {n for p in Pieces(rewritten[module]).body for n in p.names} - LOGGERS:
            home = homes.get((module, name), plan.target[module])
            if home != target:
                elsewhere[name] = home
        for name, home in elsewhere.items():
            if any(name in piece.used for piece in mine):
                imports.append(f"from {home} import {name}\n")
        for piece in mine:
            stripped = piece.text.strip()
            if any(seen.get(name) == stripped for name in piece.names):
                continue
            for name in piece.names:
                if name in seen:
                    problem(f"{target}: {name} is defined twice, in {module} and before; add it to RENAMES")
                seen[name] = stripped
            if stripped.startswith("log = ") or stripped.startswith("logger = "):
                first.append(piece.text)
            elif isinstance(piece.node, (ast.Assign, ast.AnnAssign)) and not piece.used & functions and module != sources[0]:
                constants.append(piece.text)
            elif module == sources[0] and isinstance(piece.node, (ast.Assign, ast.AnnAssign)) and not body and not piece.used & functions:
                first.append(piece.text)
            else:
                body.append(piece.text)
    known = dict.fromkeys(imports)
    text = f"{doc}\n\nfrom __future__ import annotations\n\n{''.join(known)}"
    if types:
        text += "\nif TYPE_CHECKING:\n" + "".join(dict.fromkeys(types))
    text += "\n" + "".join(first) + "".join(constants) + "\n\n" + "\n\n".join(body)
    return drop_self_imports(text, target)


def parts_of(plan: Plan, module: str, target: str, rewritten: dict[str, str]) -> list[Piece]:
    """The pieces of an old module that belong to a new one."""
    found: list[Piece] = []
    loggers = []
    for piece in Pieces(rewritten[module]).body:
        if piece.names == {"__all__"}:
            continue
        if piece.names & LOGGERS and plan.target[module] != target:
            loggers.append(piece)
            continue
        if any((module, name) in plan.duplicates for name in piece.names):
            continue
        homes = {plan.symbols.get((module, name), plan.target[module]) for name in piece.names} or {plan.target[module]}
        if len(homes) > 1:
            problem(f"{module}: one statement defines names of several new modules: {sorted(piece.names)}")
        if target in homes:
            found.append(piece)
    return [one for one in loggers if any(one.names & p.used for p in found)] + found


def drop_self_imports(text: str, target: str) -> str:
    """Remove imports of a module from itself."""
    starts, edits, tree = line_starts(text), [], ast.parse(text)
    top = {(n.module, a.name, a.asname) for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.ImportFrom) and node.module):
            continue
        if node not in tree.body and {(node.module, a.name, a.asname) for a in node.names} <= top:
            edits.append((starts[node.lineno - 1], starts[node.end_lineno or 0]))
            continue
        if node.module == target:
            edits.append((starts[node.lineno - 1], starts[node.end_lineno or 0]))
            if any(alias.asname for alias in node.names):
                problem(f"{target}: imports itself under another name: {ast.unparse(node)}")
    for start, end in sorted(edits, reverse=True):
        text = text[:start] + text[end:]
    ast.parse(text)
    return text


# ------------------------------------------------------------------------------------------------------------------ files
def run(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"move.py: {' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def write(root: Path, path: Path, text: str, origin: Path | None) -> None:
    """Write a file; git follows it from ``origin``."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    if origin is not None and origin != path and (root / origin).exists():
        run(root, "git", "mv", "-f", str(origin), str(path))
    (root / path).write_text(text, encoding="utf-8")


def move_package(plan: Plan, root: Path) -> None:
    sources: dict[str, list[str]] = defaultdict(list)
    order = {dotted(name): number for number, name in enumerate(MOVES)}
    rewritten = {}
    for module, text in plan.source.items():
        names = {old: new for (m, old), new in plan.renames.items() if m == module}
        relative = plan.old[module].as_posix()
        rewritten[module] = Rewriter(plan, relative).python(rename_tokens(text, names))
        sources[plan.target[module]].append(module)
    for (module, _), target in plan.symbols.items():
        if module not in sources[target]:
            sources[target].append(module)
    docs = {dotted(name): doc for name, doc in DOCS.items()}
    for target, given in sources.items():
        own = [m for m in given if plan.target[m] == target]
        given.sort(key=lambda m: (m not in own, order.get(m, 0)))
    texts, origins = {}, {}
    for target, given in sources.items():
        joined = len(given) > 1 or given[0] in plan.split
        text = assemble(plan, target, given, rewritten, docs) if joined else rewritten[given[0]]
        path = plan.path_of(target)
        own = [plan.old[m] for m in given if plan.target[m] == target]
        texts[path], origins[path] = adjust_depth(text, own[0], path) if own else text, own[0] if own else None
    stage = {path: Path(f"{path}.moving") for path in origins}
    for path, origin in origins.items():  # in two steps: one file may take the place of another that moves too
        if origin is not None and origin != path:
            (root / path).parent.mkdir(parents=True, exist_ok=True) if not (root / path.parent).is_file() else None
    taken = set()
    for path, origin in origins.items():
        if origin is not None and origin != path:
            (root / stage[path]).parent.mkdir(parents=True, exist_ok=True)
            run(root, "git", "mv", str(origin), str(stage[path]))
            taken.add(origin)
    for path in plan.old.values():
        if path not in taken and path not in texts:
            run(root, "git", "rm", "-q", "-f", str(path))
    for path, text in texts.items():
        if (root / stage[path]).exists():
            run(root, "git", "mv", "-f", str(stage[path]), str(path))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    for name, doc in PACKAGES.items():
        path = Path(*dotted(name).split(".")) / "__init__.py"
        if name == "structures":
            doc = Pieces(plan.source["tldet.structures"]).doc
        if path not in texts or name == "=benchmarks":
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(str(doc) + "\n", encoding="utf-8")


DEPTH = re.compile(r"(Path\(__file__\)(?:\.resolve\(\))?|(?<=SCRIPT))\.parents\[(\d)\]")


def adjust_depth(text: str, old: Path, new: Path) -> str:
    """``Path(__file__).parents[n]`` of a file that moves to another depth."""
    more = len(new.parts) - len(old.parts)
    if not more:
        return text
    if re.search(r"Path\(__file__\)(\.resolve\(\))?\.(parent\b(?!s)|with_name)", text):
        problem(f"{new}: uses files beside it; look whether they have moved too")
    return DEPTH.sub(lambda m: f"{m.group(1)}.parents[{int(m.group(2)) + more}]", text)


def finish_benchmarks(root: Path) -> None:
    path = root / "benchmarks/__main__.py"
    text = path.read_text(encoding="utf-8")
    process = (root / "tldet/cli/process.py").exists()
    imports = "import logging\nimport sys\nfrom collections.abc import Sequence\n"
    imports += "from tldet.cli.parser import Parser\nfrom tldet.errors import TldetError\n"
    imports += "from tldet.cli.process import prepare\n" if process else ""
    text = text.replace("from argparse import", imports + "from argparse import", 1)
    text = text.replace('"""``tldet benchmark``."""', '"""``python -m benchmarks SUITE``: time tldet against other packages."""')
    main = BENCHMARK_MAIN if process else BENCHMARK_MAIN.replace('    prepare("benchmark")\n', "")
    path.write_text(text.rstrip("\n") + "\n" + main, encoding="utf-8")
    (root / "tldet/cli/__main__.py").write_text('"""``python -m tldet.cli``."""\n\nfrom tldet.cli.main import entry\n\nentry()\n', encoding="utf-8")
    replace(root, "tldet/cli/main.py", '\n\nif __name__ == "__main__":\n    entry()\n', "\n")


def replace(root: Path, path: str, old: str, new: str, *, needed: bool = True) -> None:
    """Replace a text once it is there; list it if it is not."""
    file = root / path
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if old not in text:
        if needed:
            problem(f"{path}: does not contain {old.strip()[:70]!r}, which should become {new.strip()[:70]!r}")
        return
    file.write_text(text.replace(old, new), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------------ tests
def test_moves(plan: Plan, root: Path) -> dict[Path, Path]:
    moves = {Path(a): Path(b) for a, b in TESTS.items() if (root / a).exists()}
    for module, target in plan.target.items():
        if module == target or not target.startswith("tldet.") or module in plan.packages:
            continue
        old_file, new_file = plan.old[module], plan.path_of(target)
        old = Path("tests", *old_file.parts[1:-1], f"test_{old_file.stem}.py")
        new = Path("tests", *new_file.parts[1:-1], f"test_{new_file.stem}.py")
        if not (root / old).exists() or old in moves or old == new:
            continue
        if sum(t == target for t in plan.target.values()) > 1:
            new = new.with_name(old.name)
        if old == new:
            continue
        if old.as_posix() in STAY and new.parent != old.parent:
            notes.append(f"{old} stays beside its fixtures; its module is {target}")
            continue
        if (root / new).exists() or new in moves.values():
            notes.append(f"{old} stays: {new} exists")
            continue
        moves[old] = new
    for path in (root / "tests/commands").rglob("*.py") if (root / "tests/commands").is_dir() else []:
        moves.setdefault(path.relative_to(root), Path("tests/cli") / path.name)
    return {old: new for old, new in moves.items() if old != new}


def move_tests(plan: Plan, root: Path) -> None:
    moves = test_moves(plan, root)
    modules = {".".join(a.with_suffix("").parts): ".".join(b.with_suffix("").parts) for a, b in moves.items()}
    others = [p.relative_to(root) for d in ("tests", "examples", "tools", "docs", "configs", "data") if (root / d).is_dir() for p in sorted((root / d).rglob("*")) if p.is_file()]
    tracked = {Path(one) for one in run(root, "git", "ls-files").splitlines()}
    single = [Path(one) for one in ("pyproject.toml", "Makefile", "README.md", ".pre-commit-config.yaml", ".ci/run", "CONTRIBUTING.md", "mkdocs.yml") if (root / one).exists()]
    for path in [*[p for p in others if p in tracked], *single]:
        if path.suffix not in (".py", ".md", ".toml", ".yaml", ".yml", ".ipynb", "") or path.name == "CHANGELOG.md":
            continue
        text = (root / path).read_text(encoding="utf-8")
        rewriter = Rewriter(plan, path.as_posix())
        new = rewriter.python(text) if path.suffix == ".py" else rewriter.plain(text)
        for a, b in modules.items():
            new = re.sub(rf"\b{re.escape(a)}\b", b, new)
        for a, b in moves.items():
            new = new.replace(a.as_posix(), b.as_posix())
        target = moves.get(path, path)
        if target != path:
            if re.search(r"^from \.", new, re.M) and target.parent != path.parent:
                problem(f"{target}: relative imports in a test that moved")
            new = adjust_depth(new, path, target)
        if new != text or target != path:
            write(root, target, new, path)


def special(plan: Plan, root: Path) -> None:
    """Places that name the layout itself."""
    path = root / "tests/test_layers.py"
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    wanted = [n for n in tree.body if defined_by(n) & {"LAYERS", "LEVEL", "FLAT"}]
    if len(wanted) == 3:
        text = "".join(lines[: wanted[0].lineno - 1]) + LAYER_TEST + "".join(lines[wanted[-1].end_lineno or 0 :])
    else:
        problem("tests/test_layers.py: LAYERS, LEVEL and FLAT are not where they were")
    if "if part == place or part not in LEVEL:" not in text:
        problem("tests/test_layers.py: complaint() is not as it was; let it pass ON_CALL")
    text = text.replace("if part == place or part not in LEVEL:", "if part == place or part not in LEVEL or (place, part) in ON_CALL:")
    if "cycle" not in text:
        text = text.rstrip("\n") + "\n" + CYCLE_TEST
    path.write_text(text, encoding="utf-8")
    replace(root, "tests/test_output.py" if (root / "tests/test_output.py").exists() else "tests/system/test_output.py", '    "output.py": "the writer"', '    "system/output.py": "the writer"')
    replace(root, "tests/system/test_output.py", ' and not name.startswith("benchmarks/")', "")
    effects = 'COMMANDS = ("cli.py", "quickstart.py", "commands", "benchmarks")'
    replace(root, "tests/test_side_effects.py", effects, 'COMMANDS = ("cli",)', needed=(root / "tests/test_side_effects.py").exists())
    replace(root, "tests/cli/test_main.py", '        "benchmark",\n', "")
    replace(root, "tests/cli/test_main.py", '        ["benchmark", "--json", "."],\n', "")
    replace(root, "tests/cli/test_process.py", ', "benchmark"}  # benchmark sets up its own processes', "}", needed=(root / "tests/cli/test_process.py").exists())
    replace(root, "tests/benchmarks/test_suites.py", "from tldet.cli.main import main", "from benchmarks.__main__ import main")
    replace(root, "tests/benchmarks/test_suites.py", 'main(["benchmark", *arguments])', "main(arguments)")
    replace(root, "pyproject.toml", 'files = ["tldet"]', 'files = ["tldet", "benchmarks"]')
    replace(root, "pyproject.toml", 'testpaths = ["tests"]\n', 'testpaths = ["tests"]\npythonpath = ["."]  # benchmarks and tests.tools\n')
    for name in ("README.md", "docs/benchmarks.md", "benchmarks/run.py", *[p.relative_to(root).as_posix() for p in (root / "docs").rglob("*.md")]):
        replace(root, name, "tldet benchmark", "python -m benchmarks", needed=False)
    hold = """locks import locked\\nwith locked(sys.argv[1]): print("""
    replace(root, "tests/workflows/test_locked.py", hold, """locks import locked"\n    "\\nwith locked(sys.argv[1]): print(""")
    move_fixture(root, "spread", "tests/engine/conftest.py", "tests/models/surgery/conftest.py")
    if "tldet.visualize.drawing" in (root / "tldet/structures/detections.py").read_text(encoding="utf-8"):  # no cycle
        one, drawing = "from tldet.structures.detections import Detections\n", "tldet/visualize/drawing.py"
        replace(root, drawing, one, "")
        replace(root, drawing, "\nif TYPE_CHECKING:\n", f"\nif TYPE_CHECKING:\n    {one}")
    homes(plan, root)
    for path in (root / "tools").glob("*.py"):
        if path.stem not in KEPT_TOOLS:
            run(root, "git", "rm", "-q", "-f", str(path.relative_to(root)))
    changelog(root)


def move_fixture(root: Path, name: str, old: str, new: str) -> None:
    """Move a fixture to the folder of the tests that use it; unused imports are removed afterwards."""
    text = (root / old).read_text(encoding="utf-8")
    pieces = Pieces(text)
    found = [piece for piece in pieces.body if name in piece.names]
    users = [p for p in (root / old).parent.glob("*.py") if p.name not in ("conftest.py", "toy_run.py") and re.search(rf"\b{name}\b", p.read_text(encoding="utf-8"))]
    if len(found) != 1 or users:
        problem(f"{old}: the fixture {name} cannot be moved; used by {[p.name for p in users]}")
        return
    (root / old).write_text(text.replace(found[0].text, ""), encoding="utf-8")
    new_text = '"""Networks with normalization as after training."""\n\n' + "".join(pieces.imports) + "\n\n" + found[0].text
    (root / new).write_text(new_text, encoding="utf-8")


def homes(plan: Plan, root: Path) -> None:
    """The public names of ``tldet`` that structures.py defined."""
    path = root / "tldet/__init__.py"
    text = path.read_text(encoding="utf-8")
    home = defaultdict(lambda: "detections")
    home.update({n: t.rpartition(".")[2] for (m, n), t in plan.symbols.items() if m == "tldet.structures"})

    def each(match: re.Match[str]) -> str:
        names = re.findall(r"\w+", match.group(1))
        return "".join(f'    "{name}": "tldet.structures.{home[name]}",\n' for name in names)

    text = re.sub(r'    \*\*dict\.fromkeys\(\(([^)]*)\), "tldet\.structures"\),\n', each, text)
    text = re.sub(r'"(\w+)": "tldet\.structures"', lambda m: f'"{m.group(1)}": "tldet.structures.{home[m.group(1)]}"', text)
    path.write_text(text, encoding="utf-8")
    problems[:] = [one for one in problems if not one.startswith("tldet/__init__.py: the module tldet.structures")]


def changelog(root: Path) -> None:
    replace(root, "CHANGELOG.md", "`tldet benchmark`: suites", "`python -m benchmarks`: suites", needed=False)


# ----------------------------------------------------------------------------------------------------------------- checks
def tidy(root: Path) -> None:
    """Sort imports, remove unused ones, format, wrap long comments and docstrings."""
    ruff = next((one for one in (root / ".venv/bin/ruff", Path(sys.executable).with_name("ruff")) if one.exists()), Path("ruff"))
    fix = [str(ruff), "check", "--fix", "--quiet", "--select", "I,F401,F811,RUF022,D202", "."]
    subprocess.run(fix, cwd=root, capture_output=True, check=False)
    subprocess.run([str(ruff), "format", "--quiet", "."], cwd=root, check=False)
    long = subprocess.run([str(ruff), "check", "--select", "E501", "--output-format", "concise", "."], cwd=root, capture_output=True, text=True, check=False)
    found = defaultdict(list)
    for line in long.stdout.splitlines():
        if match := re.match(r"(.+?):(\d+):\d+: E501", line):
            found[match.group(1)].append(int(match.group(2)))
    for name, numbers in found.items():
        wrap(root / name, sorted(numbers, reverse=True), name)
    subprocess.run(fix, cwd=root, capture_output=True, check=False)
    subprocess.run([str(ruff), "format", "--quiet", "."], cwd=root, check=False)
    left = subprocess.run([str(ruff), "check", "--output-format", "concise", "."], cwd=root, capture_output=True, text=True, check=False)
    for line in left.stdout.splitlines():
        if re.match(r".+:\d+:\d+: ", line):
            problem(f"ruff: {line}")


def wrap(path: Path, numbers: list[int], name: str) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    inside = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            inside |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    for number in numbers:
        line = lines[number - 1]
        indent = line[: len(line) - len(line.lstrip())]
        if number not in inside and not line.lstrip().startswith("# "):
            problem(f"{name}:{number}: a line is longer than 120 characters")
            continue
        mark = "# " if line.lstrip().startswith("# ") else ""
        own = indent + mark
        deeper = own + "    " if not mark and re.match(r"\w+(, \w+)*: ", line.lstrip()) else own
        while len(line) > 120:  # the words beyond go into the next line of the paragraph, which may overflow in turn
            at = line.rfind(" ", len(own) + 1, 121)
            rest, lines[number - 1] = line[at + 1 :], line[:at]
            following = lines[number] if number < len(lines) else ""
            content = following[len(deeper) :]
            joins = following.startswith(deeper) and content and not content.startswith((" ", '"""', "- ")) and not re.match(r"\w+(, \w+)*: |.*\): ", content)
            joins = joins and (mark != "" or number + 1 in inside)
            if joins:
                lines[number] = deeper + rest + " " + content
            else:
                lines.insert(number, deeper + rest)
            number, line, own = number + 1, lines[number], deeper
    path.write_text("\n".join(lines), encoding="utf-8")


def leftovers(plan: Plan, root: Path) -> None:
    """Old names that still stand somewhere."""
    gone = {m for m in plan.old if plan.target[m] != m and m.removeprefix("tldet.") not in BARE}
    gone -= set(plan.target.values())
    pattern = re.compile(r"\btldet(?:\.\w+)+")
    for one in run(root, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        path = root / one
        if path.suffix not in (".py", ".md", ".toml", ".yaml", ".yml", ".ipynb", "") or not path.is_file() or path.name == "CHANGELOG.md":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            for match in pattern.finditer(line):
                parts = match.group(0).split(".")
                if any(".".join(parts[:n]) in gone for n in range(2, len(parts) + 1)):
                    problem(f"{one}:{number}: still names {match.group(0)}")
    for path in sorted((root / "tldet").rglob("*.py")):
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > 250 and "heads" not in path.parts:
            notes.append(f"{path.relative_to(root)}: {count} lines")
    files = [p for p in (root / "tldet/engine").glob("*.py") if p.name != "__init__.py"]
    notes.append(f"engine: {len(files)} files: {', '.join(sorted(p.stem for p in files))}")


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    if run(root, "git", "status", "--porcelain", "--untracked-files=no").strip():
        sys.exit("move.py: the checkout has changes; commit or stash them first")
    plan = Plan(root)
    move_tests(plan, root)
    move_package(plan, root)
    for folder in ("tldet/benchmarks", "tldet/commands", "tests/commands", "tldet/transfer/dialects"):
        for path in sorted((root / folder).rglob("__pycache__"), reverse=True) if (root / folder).exists() else []:
            for one in path.iterdir():
                one.unlink()
            path.rmdir()
        if (root / folder).exists() and not any((root / folder).iterdir()):
            (root / folder).rmdir()
    finish_benchmarks(root)
    special(plan, root)
    tidy(root)
    leftovers(plan, root)
    print("notes:", *sorted(set(notes)), sep="\n  ")
    print("not handled:", *(sorted(set(problems)) or ["nothing"]), sep="\n  ")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
