"""``TextTable``: a sequence of strings stored in two arrays, which processes can share without copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

_CHUNK = 4096  # strings decoded at a time in iteration


class TextTable(Sequence[str]):
    """Sequence of strings that are decoded on access.

    Args:
        text: (B,) uint8, the UTF-8 bytes of all strings, concatenated.
        spans: (N + 1,) int64, offset of each string in ``text``, and B.
    """

    def __init__(self, text: NDArray[np.uint8], spans: NDArray[np.int64]) -> None:
        self.text, self.spans = np.asarray(text), np.asarray(spans)

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextTable:
        """Make a table of ``texts``."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        spans = np.concatenate([[0], np.cumsum([len(one) for one in encoded], dtype=np.int64)]).astype(np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), spans)

    def __len__(self) -> int:
        return len(self.spans) - 1

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        if isinstance(key, slice):
            return [self._text(position) for position in range(*key.indices(len(self)))]
        position = int(key) + len(self) if key < 0 else int(key)
        if not 0 <= position < len(self):
            raise IndexError(f"index {key} is out of range for {len(self)} texts")
        return self._text(position)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            spans = self.spans[start : start + _CHUNK + 1].tolist()
            text = self.text[spans[0] : spans[-1]].tobytes()
            yield from (_decoded(text[a - spans[0] : b - spans[0]]) for a, b in pairwise(spans))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TextTable of {len(self)} texts"

    def _text(self, position: int) -> str:
        return _decoded(self.text[self.spans[position] : self.spans[position + 1]].tobytes())


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")
