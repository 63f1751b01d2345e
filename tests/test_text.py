"""Numbers with their nouns."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tldet
from tldet.text import are, counted

ROOT = Path(tldet.__file__).parent
MORE_NOUNS = {"ids", "entries", "seconds", "tables", "texts", "values"}
NOT_ADJECTIVES = {"and", "contains", "for", "has", "of", "over", "with", "without"}
WORDS = r" (?:([a-z-]+) )?([a-z-]+s)\b(?!/s)"
FORMAT = re.compile(rf"(?<![\d.])%(?:\d*d|s){WORDS}")
CONSTANT = re.compile(r"(self\.)?[A-Z_]+( / 1000000\.0)?")  # larger than 1

# Places where the value is no count, or a count that cannot be 1
EXCEPTIONS = {
    "data/checks/boxes.py: {image[0]} pixels": "height of an image, WxH pixels",
    "data/checks/statistics.py: {len(rare)} classes": "stated above 5 only",
    "data/folder.py: {len(classes)} class folders": "one class is an error of its own, before",
    "data/formats/detect.py: {known[name].title} annotations": "name of a format",
    "data/formats/labelme.py: {least} points": "2 or 3",
    "data/formats/via.py: {key} regions": "key of a JSON",
    "data/formats/via.py: {who} regions": "key of a JSON",
    "data/images.py: {have} several frames": "has or have",
    "data/layouts.py: {split} annotations": "name of a split",
    "data/layouts.py: {len(names)} files": "stated above 8 only",
    "data/sample_checks.py: {size[0]} pixels": "height of an image, WxH pixels",
    "data/splits.py: {len(absent)} classes": "stated above 10 only",
    "data/subsets.py: {len(names)} classes": "stated above 5 only",
    "evaluation/power_law.py: {len(found)} runs": "fewer numbers of images than 3 are an error of their own, before",
    "evaluation/power_law.py: {images} images": "more than a multiple of the largest run",
    "inference/predictor.py: %d frames": "stated above 1 only",
    "runtime/images.py: {self.max_pixels / 1000000.0} million pixels": "a limit in millions, 0.5 million pixels",
    "runtime/images.py: {height} pixels": "height of an image, WxH pixels",
    "runtime/network.py: {path} runs": "a verb",
    "structures/rle.py: {length} pixels": "more than a limit",
    "system/downloads.py: {self.limits.most} bytes": "a limit",
    "system/unpacking.py: {self.most} bytes": "a limit",
    "visualize/page/document.py: {len(table.rows)} rows": "stated above 12 only",
    "workflows/check/fix.py: {len(source.files)} annotation files": "stated above 1 only",
    "workflows/predict/outputs.py: {height} pixels": "height of an image, WxH pixels",
}


def test_one_is_singular() -> None:
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
    assert counted(12345, "object") == "12,345 objects"
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [are(n) for n in (0, 1, 2)] == ["are", "is", "are"]


def nouns_of(trees: dict[str, ast.Module]) -> set[str]:
    """Return the plurals of all nouns that the package counts."""
    calls = [n for t in trees.values() for n in ast.walk(t) if isinstance(n, ast.Call) and len(n.args) > 1]
    texts = [
        [one.value for one in call.args[1:] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        for call in calls
        if ast.unparse(call.func) == "counted"
    ]
    return MORE_NOUNS | {(words[1] if len(words) > 1 else f"{words[0]}s").split()[-1] for words in texts if words}


def counts(tree: ast.Module, nouns: set[str]) -> Iterator[str]:
    """Yield the texts of a module that put a value before a plural: of f-strings and of formats of log lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pairs = list(zip(node.values, node.values[1:], strict=False))
            found = [(f"{{{_text(one)}}}", re.match(WORDS, _text(after))) for one, after in pairs]
            found = [pair for pair in found if not CONSTANT.fullmatch(pair[0][1:-1])]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = [(one[0].partition(" ")[0], one) for one in FORMAT.finditer(node.value)]
        else:
            continue
        for value, match in found:
            if match and match[2] in nouns and match[1] not in NOT_ADJECTIVES and match[2] != match[1]:
                yield value + match[0][match[0].index(" ") :]


def _text(part: ast.expr) -> str:
    return ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else str(getattr(part, "value", ""))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('f"{n} images"', ["{n} images"]),
        ('f"{a} of {len(b)} bad images missing"', ["{len(b)} bad images"]),
        ('log("%s: %d of %d images")', ["%d images"]),
        ('log("%s without objects")', []),
        ('f"{counted(n, 1)} with images, {LIMIT} images, {rate:.1f} images/s"', []),
    ],
)
def test_counts_are_found(code: str, found: list[str]) -> None:
    assert list(counts(ast.parse(code), {"images", "objects"})) == found


def test_a_number_and_its_noun_agree() -> None:
    trees = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}
    nouns = nouns_of(trees)
    assert {"images", "classes", "frames", "boxes", "bytes"} <= nouns
    found = {f"{name}: {text}" for name, tree in trees.items() for text in counts(tree, nouns)}
    assert sorted(found - EXCEPTIONS.keys()) == []  # use tldet.text.counted
    assert sorted(EXCEPTIONS.keys() - found) == []
