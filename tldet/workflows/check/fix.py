"""``tldet check --fix``: new annotation files with the unambiguous repairs, and the list of changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tldet.coco.records import read_json_text
from tldet.coco.text import parse
from tldet.data.checks.findings import Finding, Repair
from tldet.data.checks.statistics import InputSettings
from tldet.errors import ConfigError, DataError, OutputError
from tldet.system.inputs import is_folder
from tldet.system.output import write_json
from tldet.system.output_checks import check_outputs
from tldet.text import counted
from tldet.workflows.check.problems import quick_problems
from tldet.workflows.check.request import CheckRequest
from tldet.workflows.check.sources import CheckSource, open_json

_PASSES = 5  # a repair may reveal another problem: a box that was negative may be annotated twice
_SECTIONS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Change:
    """One change of a file.

    Attributes:
        file: the source file.
        code: code of the finding.
        section: list that contains the record: ``images``, ``annotations`` or ``categories``.
        id: id of the record before the change.
        before: values of the changed keys; None for a missing key. The whole record if it is removed.
        after: the new values; None if the record is removed.
    """

    file: str
    code: str
    section: str
    id: Any
    before: Mapping[str, Any]
    after: Mapping[str, Any] | None


@dataclass(frozen=True)
class Repaired:
    """Repaired files.

    Attributes:
        contents: content of each new file.
        changes: all changes.
        left: remaining findings, which need a decision.
    """

    contents: Mapping[Path, Any]
    changes: tuple[Change, ...]
    left: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the values of the list of changes."""
        return {
            "files": [str(path) for path in self.contents],
            "changes": [asdict(change) for change in self.changes],
            "left": [finding.as_dict() for finding in self.left],
        }

    def lines(self) -> list[str]:
        """Return the output files and the numbers of changes and remaining findings, for the console."""
        files = ", ".join(str(path) for path in self.contents)
        left = sum(finding.severity != "info" for finding in self.left)
        return [f"saved to {files}: {counted(len(self.changes), 'change')}, {counted(left, 'finding')} remaining"]


def refuse_sources(request: CheckRequest, source: CheckSource) -> None:
    """Reject an output that would replace a source file.

    Raises:
        TldetError: the repaired files cannot be written, or the dataset is not COCO JSON.
    """
    if request.fix is None:
        return
    if source.format != "coco":
        raise ConfigError(
            f"--fix repairs COCO JSON only; convert the dataset first: tldet convert {request.data} --to coco --out DIR"
        )
    targets = dict.fromkeys(_targets(Path(request.fix), source).values())
    outputs = [one for path in targets for one in (path, _changes_file(path))]
    check_outputs(outputs, source.files, overwrite=request.overwrite)


def _targets(out: Path, source: CheckSource) -> dict[Path, Path]:
    """Return the new file of each source file."""
    if len(source.files) == 1 and not is_folder(out):
        return dict.fromkeys(source.files, out)
    if out.suffix.lower() == ".json":
        raise OutputError(f"--fix {out}: must be a folder, because there are {len(source.files)} annotation files")
    names = [path.name for path in source.files]
    if len(set(names)) == len(names):
        return {path: out / path.name for path in source.files}
    return {path: out / path.parent.name / path.name for path in source.files}


def _changes_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}_changes.json")


def repair(request: CheckRequest, source: CheckSource, findings: Sequence[Finding]) -> Repaired:
    """Apply the repairs, check the result, and repeat until nothing changes."""
    targets = _targets(Path(str(request.fix)), source)
    contents: dict[Path, Any] = {}
    changes: list[Change] = []
    left = [finding for finding in findings if finding.file not in {str(path) for path in targets}]
    for path, target in targets.items():
        own = [finding for finding in findings if finding.file == str(path)]
        values = _parsed(path)
        for _ in range(_PASSES):
            if values is None or not any(finding.repairs for finding in own):
                break
            sizes = [finding for finding in own if any(one.section == "images" for one in finding.repairs)]
            values, made = _apply(values, sizes or own, path)  # boxes in fractions depend on the sizes
            changes += made
            own = [*_check_again(request, source, path, values), *(one for one in own if _is_whole(one))]
        left += own
        if values is not None:
            contents[target] = values
    return Repaired(contents, tuple(changes), tuple(left))


def _parsed(path: Path) -> Any:
    try:
        values = parse(read_json_text(path), str(path))
    except DataError:  # a finding
        return None
    return values if isinstance(values, dict) else None


def _is_whole(finding: Finding) -> bool:
    """Return True for a finding of a check that is not repeated after repairs."""
    return finding.code.startswith(
        ("leak-", "label-", "image-identical", "image-similar", "class-not-", "image-unl")
    ) or (finding.code == "category-differs")


def _check_again(request: CheckRequest, source: CheckSource, path: Path, values: Any) -> list[Finding]:
    images = None if request.images is None else Path(request.images)
    data = Path(request.data)
    records, findings = open_json(path, source.files[path], data if is_folder(data) else path.parent, images, values)
    return [*findings, *([] if records is None else quick_problems([records], InputSettings()))]


def _apply(values: dict[str, Any], findings: Sequence[Finding], path: Path) -> tuple[dict[str, Any], list[Change]]:
    """Apply repairs to a copy, at most one to each value; the next pass finds and repairs the others."""
    changed = {**values, **{name: list(values[name]) for name in _SECTIONS if isinstance(values.get(name), list)}}
    changes: list[Change] = []
    removed: list[Repair] = []
    taken: set[tuple[str, int, str]] = set()
    for finding in findings:
        keys = {(one.section, one.row, key) for one in finding.repairs for key in one.values or ("",)}
        if keys & taken or {(section, row, "") for section, row, _ in keys} & taken:
            continue
        taken |= keys
        for one in finding.repairs:
            changes.append(_change(changed, one, finding.code, path))
            if one.values is None:
                removed.append(one)
            else:
                changed[one.section][one.row] = {**changed[one.section][one.row], **one.values}
    for one in sorted(removed, key=lambda one: -one.row):
        del changed[one.section][one.row]
    return changed, changes


def _change(values: Mapping[str, Any], one: Repair, code: str, path: Path) -> Change:
    record = values[one.section][one.row]
    before = record if one.values is None else {key: record.get(key) for key in one.values}
    return Change(str(path), code, one.section, record.get("id"), before, one.values)


def write_repaired(repaired: Repaired) -> None:
    """Write the new files, and the list of changes next to the first one.

    Raises:
        OutputError: a file cannot be written.
    """
    for path, values in repaired.contents.items():
        write_json(path, values)
    if repaired.contents:
        write_json(_changes_file(next(iter(repaired.contents))), repaired.as_dict(), indent=2)
