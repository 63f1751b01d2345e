"""Objects that the restricted unpickler creates: stand-ins, arrays and plain containers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Builder = Callable[..., Any]
_SCALARS = (str, int, float, bool, type(None), bytes)
_NUMBER = re.compile(r"[<|=]?[?biufc]\d{0,2}")  # numpy dtypes except objects, text and records


@dataclass(frozen=True, eq=False)
class StandIn:
    """Stand-in for a class or function in the file, or for the result of calling it.

    Attributes:
        name: module and name in the file.
        called: True for a result.
    """

    name: str
    called: bool = False


class Array:
    """NumPy array whose content follows in a later instruction; ``value`` is None unless it contains numbers."""

    value: NDArray[Any] | None = None

    def fill(self, state: Any) -> None:
        """Set the content from NumPy's ``(version, shape, dtype, fortran order, bytes)``.

        Raises:
            ValueError: the number of bytes does not fit the shape.
        """
        _, shape, dtype, fortran, raw = state
        if isinstance(dtype, np.dtype) and isinstance(raw, bytes):
            self.value = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _dtype(code: str, *_: Any) -> Any:
    number = isinstance(code, str) and _NUMBER.fullmatch(code)
    return np.dtype(code) if number else StandIn("numpy.dtype", called=True)


def _scalar(dtype: Any, raw: bytes) -> Any:
    if not isinstance(dtype, np.dtype):
        return StandIn("numpy.scalar", called=True)
    return np.frombuffer(raw, dtype, count=1)[0].item()


def _encode(text: str, codec: str = "") -> bytes:
    """Encode text as bytes, which pickle protocol 2 stores as text.

    Raises:
        ValueError: the encoding is not Latin-1.
    """
    if codec not in ("latin1", "latin-1"):
        raise ValueError(f"text in an unusual encoding {codec!r:.20}")
    return str.encode(text, "latin-1")


def plain_dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    """Create a dict of the pairs whose key is a scalar; other keys are not hashed."""
    return {key: value for key, value in pairs if isinstance(key, _SCALARS)}


PLAIN: dict[str, Builder] = {
    "collections.OrderedDict": plain_dict,
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: Array() for core in ("core", "_core")},
}
