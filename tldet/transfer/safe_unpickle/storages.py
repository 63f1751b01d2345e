"""Tensors of torch in a file, checked against the size of their storages before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tldet.text import counted
from tldet.transfer.safe_unpickle.objects import Builder, StandIn

DTYPES = {
    f"torch.{name}Storage": dtype
    for name, dtype in (
        ("Double", torch.float64),
        ("Float", torch.float32),
        ("Half", torch.float16),
        ("BFloat16", torch.bfloat16),
        ("Long", torch.int64),
        ("Int", torch.int32),
        ("Short", torch.int16),
        ("Char", torch.int8),
        ("Byte", torch.uint8),
        ("Bool", torch.bool),
        ("ComplexFloat", torch.complex64),
        ("ComplexDouble", torch.complex128),
    )
}


def _count(number: Any) -> bool:
    """Return True for a valid count; integers of thousands of digits would take minutes to multiply."""
    return type(number) is int and 0 <= number < 2**63


@dataclass(frozen=True)
class Storage:
    """Storage of one or more tensors: dtype, key in the file, and number of elements stated by the file."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True)
class Stored:
    """Tensor that has not been read from its file."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def check(self, lengths: Mapping[str, int]) -> None:
        """Check the tensor against the length of its storage in bytes.

        Raises:
            ValueError: the storage is shorter than stated, or the tensor exceeds it.
        """
        s, width = self.storage, self.storage.dtype.itemsize
        length = lengths.get(s.key, 0)
        if s.count * width > length:
            raise ValueError(f"a storage claims {counted(s.count * width, 'byte')} and has {length}")
        numbers, last = 1, self.offset
        for side, step in zip(self.size, self.stride, strict=True):
            numbers *= side
            last += (side - 1) * step
        if numbers and (last >= s.count or numbers > s.count):
            raise ValueError(f"a tensor of shape {list(self.size)[:6]} claims more than its storage of {s.count}")


class Maker:
    """Constructors of torch tensors; created tensors are recorded and checked when the storages are known."""

    def __init__(self) -> None:
        self.made: list[Stored] = []
        self.widths: dict[str, int] = {}  # bytes per element, by storage key
        same: Builder = lambda data, *_: data  # noqa: E731
        self.builders: dict[str, Builder] = {
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_parameter": same,
            "torch._utils._rebuild_parameter_with_state": same,
            "torch.Size": lambda *sides: tuple(*sides),
        }

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        """Create a tensor over a storage.

        Raises:
            ValueError: an argument is invalid.
        """
        if isinstance(storage, StandIn):
            return StandIn("a tensor", called=True)
        size, stride = tuple(size), tuple(stride)
        wrong = not isinstance(storage, Storage) or len(size) > 16 or len(stride) > 16
        if wrong or not all(map(_count, (offset, *size, *stride))):
            raise ValueError("an invalid tensor")
        self.made.append(Stored(storage, offset, size, stride))
        return self.made[-1]

    def storage(self, key: Any) -> Any:
        """Create the storage of a persistent id; other ids (torch once stored source code) become stand-ins.

        Raises:
            ValueError: the id is malformed.
        """
        if not (isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage"):
            return StandIn("a persistent object", called=True)
        kind, name, count = key[1], key[2], key[4]
        dtype = DTYPES.get(kind.name) if isinstance(kind, StandIn) else None
        if dtype is None:
            return StandIn("a storage", called=True)
        if not isinstance(name, str) or not _count(count) or any(key[5:6]):
            raise ValueError("an invalid storage")
        self.widths[name] = dtype.itemsize
        return Storage(dtype, name, count)

    def check(self, lengths: Mapping[str, int]) -> None:
        """Check all tensors against the lengths of their storages in bytes, by key."""
        for one in self.made:
            one.check(lengths)
