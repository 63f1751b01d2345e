"""Reading of XML: no entities, no external references, limits on size and depth; each element has its line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from tldet.errors import DataError
from tldet.system.inputs import read_file, require_file

MAX_XML_BYTES = 1 << 30  # of a file; CVAT writes one for a whole task
MAX_DEPTH = 64


@dataclass(slots=True)
class Node:
    """An element: its tag, attributes, text, children and line in the file."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Node]:
        """Yield the children with a tag."""
        return (child for child in self.children if child.tag == tag)

    def first(self, tag: str) -> Node | None:
        """Return the first child with a tag; None if there is none."""
        return next(self.all(tag), None)

    def find(self, tag: str) -> str | None:
        """Return the text of the first child with a tag, without surrounding blanks; None if there is none."""
        child = self.first(tag)
        return None if child is None else child.text.strip()


class _Builder:
    """Builder of the elements of one file."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, Node("", {}, 0)
        self.open = [self.root]
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.data
        self.parser.EntityDeclHandler = self.refuse
        self.parser.ExternalEntityRefHandler = self.refuse

    def refuse(self, *_: object) -> NoReturn:
        """Refuse entities: they can make a small file grow without bound, or read other files."""
        raise DataError(f"{self.path}: line {self.parser.CurrentLineNumber}: declares an XML entity; remove it")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        node = Node(tag, attributes, self.parser.CurrentLineNumber)
        if len(self.open) > MAX_DEPTH:
            raise DataError(f"{self.path}: line {node.line}: elements are nested more than {MAX_DEPTH} deep")
        self.open[-1].children.append(node)
        self.open.append(node)

    def end(self, _: str) -> None:
        """Close an element."""
        self.open.pop()

    def data(self, text: str) -> None:
        """Add text to the open element."""
        self.open[-1].text += text


def read_xml(path: Path, limit: int = MAX_XML_BYTES) -> Node:
    """Read an XML file and return its root element.

    Args:
        path: the file.
        limit: largest size in bytes.

    Raises:
        DataError: the file cannot be read, is too large, not well-formed, or declares entities; the message names the
            line.
    """
    size = require_file(path, DataError).st_size
    if size > limit:
        raise DataError(f"{path}: has {size / 2**20:.0f} MiB, more than the limit of {limit / 2**20:.0f} MiB for XML")
    content, builder = read_file(path, DataError), _Builder(path)
    if not content.strip():
        raise DataError(f"{path}: is empty")
    try:
        builder.parser.Parse(content, True)
    except expat.ExpatError as error:
        what = expat.errors.messages.get(error.code, str(error.code))
        cut = error.code in (expat.errors.codes[expat.errors.XML_ERROR_NO_ELEMENTS],) or what == "unclosed token"
        advice = "; the file may be cut off" if cut else ""
        raise DataError(f"{path}: line {error.lineno}: is not well-formed XML ({what}{advice})") from None
    except (LookupError, ValueError) as error:  # an unknown encoding
        raise DataError(f"{path}: is not readable XML ({error})") from None
    return builder.root.children[0]


class _FoundError(Exception):
    """Ends parsing at the first element."""


def root_tag(start: bytes) -> str | None:
    """Return the tag of the root element, given the first bytes of a file; None if they are not XML."""
    tags: list[str] = []

    def found(tag: str, _: dict[str, str]) -> NoReturn:
        tags.append(tag)
        raise _FoundError

    parser = expat.ParserCreate()
    parser.StartElementHandler = found
    with contextlib.suppress(expat.ExpatError, LookupError, ValueError, _FoundError):
        parser.Parse(start, False)
    return tags[0] if tags else None
