"""Data and table for extending a detector of two kinds of blood cells by a third one.

    python tests/extend_proof.py data BCCD OUT              # BCCD holds coco/train.json and coco/test.json
    python tests/extend_proof.py table JOINT.json RUN ...   # JOINT.json of `tldet test --json`, RUN of `tldet extend`

``data`` writes OUT/old_train.json and OUT/old_test.json without platelets, and OUT/new_train.json with nothing else.
docs/extend.md has the commands in between.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tldet.data.shots import write_base
from tldet.workflows.extend.report import read_report

OLD, NEW = ("RBC", "WBC"), ("Platelets",)


def make_data(source: Path, out: Path) -> None:
    """The three JSON files; images without an object stay in all of them."""
    for part, names, file in (("train", NEW, "old_train"), ("test", NEW, "old_test"), ("train", OLD, "new_train")):
        made = write_base(source / "coco" / f"{part}.json", names, out / f"{file}.json", keep_images=True)
        sys.stdout.write(f"{made.path}: {made.images} images, {made.objects} objects" + "\n")


def show_table(joint: Path, folders: list[Path]) -> None:
    """A line for each run: the old classes' AP, its change, the new class's AP, its distance from joint training."""
    together = json.loads(joint.read_bytes())["per_class"]
    old = sum(together[name] for name in OLD) / len(OLD)
    sys.stdout.write(f"{'run':30s}  {'old AP':>7s} {'change':>7s} {'new AP':>7s} {'to joint':>8s}" + "\n")
    sys.stdout.write(f"{joint.stem:30s}  {old:7.3f} {'':7s} {together[NEW[0]]:7.3f}" + "\n")
    for folder in folders:
        found = read_report(folder).to_dict()["AP"]
        new, change = found["new_after"], found["old_change"]
        sys.stdout.write(
            f"{folder.name:30s}  {found['old_after']:7.3f} {change:+7.3f} {new:7.3f} {new - together[NEW[0]]:+8.3f}"
            + "\n"
        )


if __name__ == "__main__":
    action, first, *rest = sys.argv[1:]
    if action == "data":
        make_data(Path(first), Path(rest[0]))
    else:
        show_table(Path(first), [Path(folder) for folder in rest])
