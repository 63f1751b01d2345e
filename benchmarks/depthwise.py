"""Training step with rewritten backward passes of depthwise convolutions, compared with torch's kernels."""

from __future__ import annotations

import copy
from dataclasses import replace

from benchmarks.report import Row, Suite
from benchmarks.suites import Bench
from benchmarks.train import make_batch, our_step, total_loss
from tldet.config import read_config
from tldet.engine.precision import choose
from tldet.models.detector import build_detector
from tldet.models.ops.rewriting import has_depthwise
from tldet.models.surgery.frozen_norms import fold_frozen_norms
from tldet.system.device import cpu_has_bf16

RECIPES = ("faster_rcnn_lite0", "gfl_lite0", "fcos_lite0")
SIZE, QUICK_SIZE, BATCH = (320, 416), (64, 96), 4
CLASSES = 10


def run(bench: Bench) -> Suite:
    """Compare both kinds of kernels in each precision that the processor has."""
    suite = Suite("depthwise")
    precisions = ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)
    if len(precisions) == 1:
        suite.skipped.append("bf16: this processor has no bf16 instructions")
    for recipe in bench.models or RECIPES:
        rows = [_row(bench, recipe, name) for name in precisions]
        suite.rows += [row for row in rows if row is not None]
        if None in rows:
            suite.skipped.append(f"{recipe}: has no depthwise convolutions")
    return suite


def _row(bench: Bench, recipe: str, name: str) -> Row | None:
    bench.show(f"{recipe} in {name}: choosing the kernels")
    size, count = bench.size or (QUICK_SIZE if bench.quick else SIZE), bench.batch or BATCH
    options = {"model.backbone.weights": None, "model.head.num_classes": CLASSES}
    ours = build_detector(read_config(recipe, options)["model"]).train()
    if not has_depthwise(ours):
        return None
    fold_frozen_norms(ours.backbone.freeze())  # type: ignore[operator]
    batch = make_batch(size, count, classes=CLASSES)
    precision = choose(ours, "cpu", name, lambda: total_loss(ours, batch), f"training {size} {count}")
    plain = our_step(copy.deepcopy(ours), batch, replace(precision, rewrites={}))
    rewritten = our_step(ours, batch, precision)
    comparison = bench.compare(f"{recipe} in {name}", rewritten, plain, 8, warmup=2)
    checks = {"rewritten convolutions": len(precision.rewrites)}
    return Row(
        f"{recipe} in {name}", "torch's kernels", comparison, f"step of {count}x{size[0]}x{size[1]}", checks=checks
    )
