"""Settings of images and anchors from the config text in an mmdet checkpoint."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.config.literals import literal
from tldet.errors import ConfigError

LONGEST = 2_000_000  # characters; configs of mmdet have some ten thousand


@dataclass
class MmdetSettings:
    """Settings of a config; None if it does not contain them.

    Attributes:
        preprocess: ``model.preprocess`` section of tldet.
        input: short and long side of resized images.
        strided_conv: ``model.backbone.strided_conv`` of tldet.
        anchors: ``anchor_generator`` of the head or RPN.
        deltas: factors of the box deltas, of the second stage if there is exactly one.
        notes: settings that could not be converted.
    """

    preprocess: dict[str, Any] | None = None
    input: dict[str, int] | None = None
    strided_conv: str | None = None
    anchors: Mapping[str, Any] | None = None
    deltas: list[float] | None = None
    notes: list[str] = field(default_factory=list)


def find_config(content: Mapping[Any, Any]) -> Mapping[str, Any] | None:
    """Return the config in a checkpoint, a dict or the literals of a text, which is not run; None without a config."""
    meta, hub = content.get("meta"), content.get("message_hub")
    info = hub.get("runtime_info") if isinstance(hub, Mapping) else None
    for section in (meta, info):
        for key in ("cfg", "config"):
            found = section.get(key) if isinstance(section, Mapping) else None
            if isinstance(found, Mapping):
                return found
            if isinstance(found, str) and len(found) < LONGEST:
                return _literals(found)
    return None


def _literals(text: str) -> dict[str, Any]:
    """Return the top-level assignments of literals in a text; everything else is skipped."""
    values: dict[str, Any] = {}
    try:
        body = ast.parse(text).body
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                values[node.targets[0].id] = literal(Path("config"), node.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError, ConfigError):
        return values
    return values


def mmdet_settings(config: Mapping[str, Any] | None) -> MmdetSettings:
    """Read the settings of a config of mmdet 2.x or 3.x."""
    settings = MmdetSettings()
    if config is None:
        settings.notes.append("the file contains no config: using the published normalization, input size and anchors")
        return settings
    model = _section(config, "model")
    steps = list(_steps(_pipeline(config)))
    settings.preprocess = _preprocess(model, config, steps)
    settings.input = _input(steps)
    for name, found in (("normalization", settings.preprocess), ("input size", settings.input)):
        if found is None:
            settings.notes.append(f"no usable {name} in the config of the file: using the published one")
    style = _section(model, "backbone").get("style")
    settings.strided_conv = {"caffe": "1x1", "pytorch": "3x3"}.get(str(style))
    heads = (_section(model, "rpn_head"), _section(model, "bbox_head"))
    settings.anchors = next(filter(None, (_section(head, "anchor_generator") for head in heads)), None)
    coders = (_section(model, *path, "bbox_head", "bbox_coder") for path in (("roi_head",), ()))
    stds = next(filter(None, (_numbers(coder.get("target_stds"), 4) for coder in coders)), None)
    settings.deltas = [round(1 / std, 6) for std in stds] if stds and min(stds) > 0 else None
    return settings


def _section(node: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for key in path:
        found = node.get(key)
        node = found if isinstance(found, Mapping) else {}
    return node


def _pipeline(config: Mapping[str, Any]) -> Any:
    """Return the test pipeline of a config of 3.x or 2.x; empty if there is none."""
    for path in (("test_dataloader", "dataset"), ("data", "test"), ()):
        key = "pipeline" if path else "test_pipeline"
        found = _section(config, *path).get(key)
        if isinstance(found, (list, tuple)):
            return found
    return ()


def _steps(pipeline: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield all steps of a pipeline, including those of test-time augmentation."""
    if not isinstance(pipeline, (list, tuple)) or depth > 4:
        return
    for step in pipeline:
        if isinstance(step, Mapping):
            yield step
            yield from _steps(step.get("transforms"), depth + 1)
        else:
            yield from _steps(step, depth + 1)


def _preprocess(
    model: Mapping[str, Any], config: Mapping[str, Any], steps: list[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return mean, std and channel order: mmdet reads images as BGR, and converts them to RGB if configured."""
    sections = [
        (_section(model, "data_preprocessor"), "bgr_to_rgb"),
        *((step, "to_rgb") for step in steps if step.get("type") == "Normalize"),
        (_section(config, "img_norm_cfg"), "to_rgb"),
    ]
    for section, key in sections:
        mean, std = _numbers(section.get("mean")), _numbers(section.get("std"))
        if mean and std and min(std) > 0:
            return {"mean": mean, "std": std, "bgr": not section.get(key, key == "to_rgb")}
    return None


def _numbers(value: Any, count: int = 3) -> list[float] | None:
    right = isinstance(value, (list, tuple)) and len(value) == count and all(type(v) in (int, float) for v in value)
    return [float(v) for v in value] if right else None


def _input(steps: list[Mapping[str, Any]]) -> dict[str, int] | None:
    """Return the sides of a resize that keeps the aspect ratio; None if there is none."""
    for step in steps:
        name = str(step.get("type")).rpartition(".")[2]
        whole = name == "MultiScaleFlipAug"
        scale = _numbers(step.get("img_scale") if whole else step.get("scale", step.get("img_scale")), 2)
        if scale and min(scale) >= 1 and (whole or (name == "Resize" and step.get("keep_ratio"))):
            return {"short": int(min(scale)), "long": int(max(scale))}
    return None


def anchor_sizes(anchors: Mapping[str, Any]) -> tuple[list[list[float]], list[float]] | None:
    """Return the anchor sizes (square root of the area) of each level, and the ratios height / width, of mmdet.

    None if the values are not those of an ``AnchorGenerator``.
    """
    scales, octaves = anchors.get("scales"), anchors.get("scales_per_octave")
    base = anchors.get("octave_base_scale")
    if isinstance(octaves, int) and 0 < octaves < 100 and isinstance(base, (int, float)):
        scales = [base * 2 ** (i / octaves) for i in range(octaves)]
    parts = [anchors.get("base_sizes") or anchors.get("strides"), scales, anchors.get("ratios")]
    if not all(isinstance(p, (list, tuple)) and p and all(type(n) in (int, float) and n > 0 for n in p) for p in parts):
        return None
    levels, factors, ratios = (list(part) for part in parts if part is not None)
    return [[round(level * factor, 4) for factor in factors] for level in levels], [float(ratio) for ratio in ratios]
