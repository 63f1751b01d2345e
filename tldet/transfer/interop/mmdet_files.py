"""Recognition of MMDetection config files without running them, and the most similar recipe of tldet."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.system.inputs import is_file, real_path
from tldet.transfer.interop.known import KNOWN
from tldet.transfer.interop.mmdet_config import LONGEST

FILES = 40  # largest number of files to read for a config and its bases
KEYS = frozenset(  # top-level keys of MMDetection 2.x and 3.x that tldet does not have
    [
        "auto_scale_lr",
        "backend_args",
        "checkpoint_config",
        "custom_hooks",
        "custom_imports",
        "data_root",
        "dataset_type",
        "default_hooks",
        "default_scope",
        "dist_params",
        "env_cfg",
        "file_client_args",
        "img_norm_cfg",
        "launcher",
        "load_from",
        "log_config",
        "log_level",
        "log_processor",
        "lr_config",
        "max_epochs",
        "optim_wrapper",
        "optimizer_config",
        "param_scheduler",
        "resume_from",
        "runner",
        "test_cfg",
        "test_dataloader",
        "test_evaluator",
        "test_pipeline",
        "total_epochs",
        "train_cfg",
        "train_dataloader",
        "train_pipeline",
        "val_cfg",
        "val_dataloader",
        "val_evaluator",
        "val_pipeline",
        "vis_backends",
        "visualizer",
        "workflow",
    ]
)
INSIDE = frozenset(
    ["bbox_head", "data_preprocessor", "init_cfg", "mask_head", "roi_head", "rpn_head", "samples_per_gpu"]
)
STRINGS = re.compile(r"^(mmdet::|mmdet\.|torchvision://|open-mmlab://)|default_runtime(\.py)?$")
_MODULES = ("mmdet", "mmengine", "mmcv")
_SMALL = re.compile("mobilenet|shufflenet|efficientnet|_tiny|_s_|nano")  # of small networks
# Detectors of MMDetection without a recipe -> recipe of the most similar method.
RELATED = {
    "hybridtaskcascade": "cascade_mask_rcnn",
    "htc": "cascade_mask_rcnn",
    "detectors": "cascade_rcnn",
    "pointrend": "mask_rcnn",
    "yolact": "mask_rcnn",
    "solo": "mask_rcnn",
    "condinst": "mask_rcnn",
    "fsaf": "retinanet",
    "freeanchor": "retinanet",
    "nasfpn": "retinanet",
    "ssd": "retinanet",
    "autoassign": "fcos",
    "fovea": "fcos",
    "nasfcos": "fcos",
    "yolox": "fcos",
    "paa": "atss",
    "ddod": "atss",
    "tood": "gfl",
    "vfnet": "gfl",
    "rtmdet": "gfl",
    "ld": "gfl",
}
CONFIGS = {known.case: known.config for known in KNOWN if known.dialect == "mmdet"}


@dataclass
class Seen:
    """Names in a config and its bases.

    Attributes:
        files: names of the file and its bases, including missing ones.
        names: top-level names and keys of dicts.
        types: values of ``type`` in ``model``, outermost first.
        depth: depth of the ResNet.
        foreign: the file is a config of MMDetection.
    """

    files: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    types: list[str] = field(default_factory=list)
    depth: int | None = None
    foreign: bool = False


def is_mmdet(config: Mapping[str, Any]) -> bool:
    """Return True for the content of an MMDetection config: ``model`` has a type, or several keys are foreign."""
    model = config.get("model")
    typed = isinstance(model, Mapping) and isinstance(model.get("type"), str)
    return typed or len(KEYS.intersection(config)) > 1


def advice(path: Path) -> str:
    """Return advice on an MMDetection config file; empty for other files."""
    seen = Seen()
    _read(path, seen)
    if not seen.foreign:
        return ""
    case = _case(seen)
    small = any(_SMALL.search(name) for name in [*seen.files, *map(_normal, seen.types)])
    backbone = f" --backbone resnet{seen.depth}" if seen.depth not in (None, 50) and not small else ""
    kind = f" ({seen.types[0]})" if seen.types else ""
    return (
        f"{path}: is a config of MMDetection{kind}, which tldet does not run. Nearest recipe: tldet finetune --model "
        f"{case}_{'lite0' if small else 'r50'}{backbone} --data FOLDER --out FOLDER; for COCO: tldet train "
        f"{CONFIGS[case]}. tldet import converts checkpoints of MMDetection"
    )


def _case(seen: Seen) -> str:
    """Return the most similar detector by the type of the model, then by file names."""
    masks = "mask_head" in seen.names
    for name in [*map(_normal, seen.types[:1]), *seen.files]:
        plain = name.replace("_", "")
        for case in sorted(CONFIGS, key=len, reverse=True):
            if case.replace("_", "") in plain:
                return (
                    {"cascade_rcnn": "cascade_mask_rcnn", "faster_rcnn": "mask_rcnn"}.get(case, case) if masks else case
                )
        if related := next((case for word, case in RELATED.items() if plain.startswith(word)), None):
            return related
    if "roi_head" in seen.names:
        return "mask_rcnn" if masks else "faster_rcnn"
    near = difflib.get_close_matches(_normal(seen.types[0]) if seen.types else "", list(CONFIGS), n=1, cutoff=0.6)
    return near[0] if near else "faster_rcnn"


def _normal(name: str) -> str:
    return name.lower().replace("-", "_")


def _read(path: Path, seen: Seen) -> None:
    """Collect the names in a file and its existing bases; each file is read once."""
    waiting, known = [path], set[Path]()
    while waiting and len(known) < FILES:
        one = waiting.pop(0)
        seen.files.append(_normal(one.stem))
        if real_path(one) in known or not is_file(one) or one.stat().st_size > LONGEST:
            continue
        known.add(real_path(one))
        try:
            tree = ast.parse(one.read_text(encoding="utf-8", errors="replace"))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        waiting += [one.parent / base for base in _collect(tree, seen)]


def _collect(tree: ast.Module, seen: Seen) -> list[str]:
    """Collect the names in a file; return its bases."""
    bases: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            seen.names.add(name)
            seen.foreign |= name in KEYS
            if name == "_base_":
                bases = _strings(node.value)
            elif name == "model":
                _collect_model(node.value, seen)
    for part in ast.walk(tree):
        if isinstance(part, ast.keyword) and part.arg:
            seen.names.add(part.arg)
        elif isinstance(part, ast.Dict):
            seen.names.update(text for key in part.keys if key for text in _strings(key))
    modules = _modules(tree)
    seen.foreign |= any(module.partition(".")[0] in _MODULES for module in modules)
    seen.foreign |= not INSIDE.isdisjoint(seen.names) or any(STRINGS.search(text) for text in _strings(tree))
    return bases + [f"{module.rpartition('.')[2]}.py" for module in modules if "_base_" in module]


def _modules(tree: ast.Module) -> list[str]:
    """Return the modules that a file imports; new-style configs import their bases."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def _collect_model(node: ast.expr, seen: Seen) -> None:
    """Collect the type of the model, a key that tldet does not have, and the depth of its ResNet."""
    own = _items(node)
    if (kind := _text(own.get("type"))) is not None:
        seen.types.append(kind)
        seen.foreign = True
    depth = _items(own.get("backbone")).get("depth")
    if isinstance(depth, ast.Constant) and isinstance(depth.value, int):
        seen.depth = seen.depth or depth.value


def _items(node: ast.expr | None) -> dict[str, ast.expr]:
    """Return the items of a ``dict(...)`` or ``{...}``."""
    if isinstance(node, ast.Call):
        return {word.arg: word.value for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {
            key.value: value for key, value in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)
        }
    return {}


def _text(node: ast.expr | None) -> str | None:
    """Return the value of a string literal, or the name of a class in new-style configs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return node.id if isinstance(node, ast.Name) else None


def _strings(node: ast.AST) -> list[str]:
    return [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
