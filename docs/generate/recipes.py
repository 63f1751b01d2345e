"""The table of recipes and configs, from the data of ``tldet models``."""

from __future__ import annotations

from docs.generate.texts import table
from tldet.config.files import shipped
from tldet.workflows.models import CONVENTION, Row, detector_row

INTRO = """# Recipes

`--model NAME` of `tldet finetune`, `study` and `fewshot` takes a recipe. A recipe contains the model, the augmentation
and the optimizer; the classes, the input size and the length of training are chosen for your data. `tldet models`
prints this table, and shows which weights are already on your machine. For backbones:
`tldet models --backbones 'convnext*'`.

*Published AP* is the box AP on COCO val2017 of the published weights or configs, with its source. It was not
measured with tldet.
"""
CONFIGS = """## COCO configs

`tldet train NAME` trains a config on COCO with a published schedule ([Train on COCO](../coco.md)).
"""


def page() -> str:
    """Return the page."""
    rows = [detector_row(name) for name in shipped()]
    recipes, configs = ([row for row in rows if row.kind == kind] for kind in ("recipe", "config"))
    return "\n".join([INTRO, _table(recipes), CONFIGS, _table(configs), CONVENTION])


def _table(rows: list[Row]) -> str:
    head = ["name", "backbone", "million parameters", "GFLOPs", "input", "published AP"]
    return table(head, [_row(row) for row in rows])


def _row(row: Row) -> tuple[str, ...]:
    size = f"{row.size[0]}x{row.size[1]}"
    millions, giga = f"{row.parameters / 1e6:.1f}", f"{row.multiply_adds / 1e9:.1f}"
    return f"`{row.name}`", f"`{row.part}`", millions, giga, size, row.published or "-"
