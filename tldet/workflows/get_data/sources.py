"""Sources of ``tldet data get``: built-in YAML files (the catalog), and those of the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tldet.config.check import nearest
from tldet.data.formats.registry import VocBoxes, formats
from tldet.errors import ConfigError
from tldet.system.inputs import read_file

_CATALOG = Path(__file__).parent / "catalog"
_SPLITS = ("train", "val", "test")
_DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class SourceFile:
    """A file to download.

    Attributes:
        url: URL of the file.
        digest: ``sha256:HEX`` or ``md5:HEX``; empty if unknown.
        digest_source: origin of the digest, for messages.
        folder: folder for its content, relative to the folder of all unpacked files.
    """

    url: str
    digest: str = ""
    digest_source: str = "the publisher"
    folder: str = "."

    @property
    def name(self) -> str:
        """File name in the URL."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


@dataclass(frozen=True)
class DatasetSource:
    """A dataset to download.

    Attributes:
        name: name in messages.
        title: description in one line.
        homepage: URL of the publisher's page.
        license: license of annotations and images.
        files: the files to download.
        annotations: annotation files or folders by split; the key None if the annotations determine the splits.
        images: image folders by split.
        format: format of the annotations; None detects it.
        voc_boxes: box convention of Pascal VOC files.
        rename: new class names by class name.
        only_present: leave out annotated images that the files do not contain.
    """

    name: str
    title: str
    homepage: str
    license: str
    files: tuple[SourceFile, ...]
    annotations: Mapping[str | None, str]
    images: Mapping[str | None, str] = field(default_factory=dict)
    format: str | None = None
    voc_boxes: VocBoxes = "auto"
    rename: Mapping[str, str] = field(default_factory=dict)
    only_present: bool = False


def catalog() -> list[str]:
    """Return the names of the built-in sources."""
    return sorted(path.stem for path in _CATALOG.glob("*.yaml"))


def load_source(name: str) -> DatasetSource:
    """Load a built-in source, or one from a YAML file.

    Raises:
        ConfigError: there is no such source, or a key is invalid; the message names it.
    """
    if not name.lower().endswith((".yaml", ".yml")):
        if name not in catalog():
            raise ConfigError(f"{name}: no such dataset; {nearest(name, catalog())}; or use your own YAML file")
        return _source(name, _CATALOG / f"{name}.yaml")
    return _source(Path(name).stem, Path(name))


def _source(name: str, path: Path) -> DatasetSource:
    values = _values(path)
    keys = ("title", "homepage", "license", "files", "annotations", "images", "format", "voc_boxes", "rename")
    _refuse_unknown(values, (*keys, "only_present"), str(path))
    for key in ("license", "files", "annotations"):
        if not values.get(key):
            raise ConfigError(f"{path}: {key} is missing")
    if not isinstance(values["files"], list):
        raise ConfigError(f"{path}: files must be a list")
    kind, boxes = values.get("format"), values.get("voc_boxes", "auto")
    if kind is not None and kind not in formats():
        raise ConfigError(f"{path}: format {kind!r} is unknown; known: {', '.join(formats())}")
    if boxes not in ("auto", "continuous", "inclusive"):
        raise ConfigError(f"{path}: voc_boxes must be continuous or inclusive, not {boxes!r}")
    return DatasetSource(
        name,
        _text(values, "title", path) or name,
        _text(values, "homepage", path),
        _text(values, "license", path),
        tuple(_file(one, f"{path}: files[{number}]") for number, one in enumerate(values["files"])),
        _paths(values["annotations"], f"{path}: annotations"),
        _paths(values.get("images") or {}, f"{path}: images"),
        kind,
        boxes,
        _names(values.get("rename") or {}, f"{path}: rename"),
        values.get("only_present") is True,
    )


def _values(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(read_file(path, ConfigError).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must have the keys license, files and annotations")
    return values


def _text(values: Mapping[str, Any], key: str, path: Path) -> str:
    value = values.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {key} must be text")
    return value


def _file(value: Any, who: str) -> SourceFile:
    if not isinstance(value, dict):
        raise ConfigError(f"{who}: must have a url")
    _refuse_unknown(value, ("url", "sha256", "md5", "digest_source", "folder"), who)
    url = value.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"{who}: url must be an http or https URL")
    digest = ""
    for kind, digits in _DIGITS.items():
        if kind in value:
            if not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", str(value[kind])):
                raise ConfigError(f"{who}: {kind} must be {digits} hexadecimal digits (in quotes)")
            digest = digest or f"{kind}:{value[kind]}"
    found = SourceFile(url, digest, str(value.get("digest_source", "the publisher")))
    if found.name in ("", ".", ".."):
        raise ConfigError(f"{who}: the URL does not end in a file name")
    return SourceFile(url, digest, found.digest_source, _inside(value.get("folder", "."), f"{who}: folder"))


def _paths(value: Any, who: str) -> dict[str | None, str]:
    """Read one path, or paths by split."""
    if isinstance(value, dict):
        _refuse_unknown(value, _SPLITS, who)
        return {split: _inside(path, f"{who}.{split}") for split, path in value.items()}
    return {None: _inside(value, who)}


def _inside(value: Any, who: str) -> str:
    """Check a relative path, which must not lead out of its folder, and return it."""
    if not isinstance(value, str) or not value or "\\" in value or "\0" in value:
        raise ConfigError(f"{who}: must be a relative path with forward slashes")
    if PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
        raise ConfigError(f"{who}: {value} must be a relative path without '..'")
    return value


def _names(value: Any, who: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise ConfigError(f"{who}: must map class names to class names")
    return value


def _refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], who: str) -> None:
    if unknown := next((key for key in values if key not in known), None):
        raise ConfigError(f"{who}: unknown key {unknown!r}; {nearest(unknown, known)}")
