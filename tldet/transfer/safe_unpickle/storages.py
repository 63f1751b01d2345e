"""Torch's tensors in a file, before they are read: what they claim, held against what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tldet.transfer.safe_unpickle.unpickle import Builder, StandIn

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
    """Whether it counts something; a longer one than fits a machine's word takes minutes to multiply."""
    return type(number) is int and 0 <= number < 2**63


@dataclass(frozen=True)
class Storage:
    """The numbers behind one or more tensors: their type, their key in the file, how many the file says there are."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True)
class Stored:
    """A tensor that is still in its file."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def check(self, lengths: Mapping[str, int]) -> None:
        """Hold what the tensor claims against the real length of its storage in bytes."""
        s, width = self.storage, self.storage.dtype.itemsize
        held = lengths.get(s.key, 0)
        if s.count * width > held:
            raise ValueError(f"a storage claims {s.count * width} bytes and has {held}")
        numbers, last = 1, self.offset
        for side, step in zip(self.size, self.stride, strict=True):
            numbers *= side
            last += (side - 1) * step
        if numbers and (last >= s.count or numbers > s.count):
            raise ValueError(f"a tensor of shape {list(self.size)[:6]} claims more than its storage of {s.count}")


class Maker:
    """Torch's constructors; what they make is noted, to be checked when the storages are known."""

    def __init__(self) -> None:
        self.made: list[Stored] = []
        self.widths: dict[str, int] = {}  # bytes of one number, by the storage's key
        same: Builder = lambda data, *_: data  # noqa: E731
        self.builders: dict[str, Builder] = {
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_parameter": same,
            "torch._utils._rebuild_parameter_with_state": same,
            "torch.Size": lambda *sides: tuple(*sides),
        }

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        """A tensor of numbers of a storage, in its file still."""
        if isinstance(storage, StandIn):
            return StandIn("a tensor", called=True)
        size, stride = tuple(size), tuple(stride)
        wrong = not isinstance(storage, Storage) or len(size) > 16 or len(stride) > 16
        if wrong or not all(map(_count, (offset, *size, *stride))):
            raise ValueError("a tensor that is none")
        self.made.append(Stored(storage, offset, size, stride))
        return self.made[-1]

    def storage(self, key: Any) -> Any:
        """The storage of a persistent id; anything else (torch once wrote source code so) is a stand-in."""
        if not (isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage"):
            return StandIn("a persistent object", called=True)
        kind, name, count = key[1], key[2], key[4]
        dtype = DTYPES.get(kind.name) if isinstance(kind, StandIn) else None
        if dtype is None:
            return StandIn("a storage", called=True)
        if not isinstance(name, str) or not _count(count) or any(key[5:6]):
            raise ValueError("a storage that is none")
        self.widths[name] = dtype.itemsize
        return Storage(dtype, name, count)

    def check(self, lengths: Mapping[str, int]) -> None:
        """Hold every tensor against the real length of its storage."""
        for one in self.made:
            one.check(lengths)
