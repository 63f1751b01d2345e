"""Reading of files of ``torch.save``, ``pickle.dump`` and safetensors without running code from them.

Pickled files have one of three layouts: torch's zip archive (since 1.6), its older sequence of pickles and storages, or
a plain pickle. Before tensors are read, each tensor must lie inside its storage, and each storage inside the file.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from tldet import integrity
from tldet.errors import CheckpointError
from tldet.system.inputs import require_file
from tldet.system.output import path_text
from tldet.transfer.safe_unpickle.objects import Array, StandIn
from tldet.transfer.safe_unpickle.storages import Maker, Stored
from tldet.transfer.safe_unpickle.unpickle import Machine

MAGIC = 0x1950A86A20F9469CFC6C  # first value of torch's older layout
# Functions of torch that restore tensors other than plain arrays -> description of such a tensor.
FORMS = {
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_meta_tensor_no_storage": "without values (it was saved from the meta device)",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_wrapper_subclass": "of a tensor subclass",
    "torch._utils._rebuild_tensor_v3": "of a dtype that is not supported",
    "a tensor": "of a dtype that is not supported",
}
WRONG = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, OSError, EOFError, RuntimeError)


@dataclass
class Archive:
    """Contents of a file.

    Attributes:
        path: the file.
        value: plain containers, scalars, :class:`Stored` tensors, arrays and stand-ins.
        set_aside: number of stand-ins by class or function.
    """

    path: Path
    value: Any
    set_aside: Counter[str]
    spans: dict[str, tuple[int, int]] = field(repr=False)  # of the older layout; empty for a zip archive

    def tensors(self, state: Mapping[Any, Any]) -> dict[str, Tensor]:
        """Read the tensors and arrays among the values of ``state`` from the file.

        Raises:
            CheckpointError: the file is damaged, or a tensor is not a plain array.
        """
        _refuse_forms(self.path, state)
        try:
            whole = self._bytes({item.storage.key for item in state.values() if isinstance(item, Stored)})
            copies = {id(item): _tensor(item, whole) for item in state.values()}  # an array under two names is one
            found = {str(name): copies[id(item)] for name, item in state.items()}
        except (*WRONG, zipfile.BadZipFile) as error:
            raise _broken(self.path, error) from None
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def outlines(self, state: Mapping[Any, Any]) -> dict[str, Tensor]:
        """Return the tensors and arrays among the values of ``state`` as meta tensors, without reading their storage.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            found = {str(name): _outline(item) for name, item in state.items()}
        except WRONG as error:
            raise _broken(self.path, error) from None
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def empty(self) -> CheckpointError:
        """Return the error for a file without tensors."""
        names = ", ".join(name for name, _ in self.set_aside.most_common(3))
        code = f"; objects of other code were skipped ({names})" if names else ""
        return CheckpointError(f"{self.path}: contains no tensors{code}")

    def _bytes(self, keys: set[str]) -> dict[str, bytearray]:
        if self.spans:
            with self.path.open("rb") as file:
                return {key: _part(file, *self.spans[key]) for key in sorted(keys)}
        if not keys:
            return {}
        with zipfile.ZipFile(self.path) as file:
            root = _root(file)
            return {key: bytearray(file.read(f"{root}data/{key}")) for key in sorted(keys)}


class SafeArchive(Archive):
    """Safetensors file; ``value`` maps each tensor name to itself."""

    def tensors(self, state: Mapping[Any, Any]) -> dict[str, Tensor]:
        """Read the tensors of ``state``, which maps new names to names in the file."""
        try:
            integrity.check_safetensors(self.path)
        except ValueError as error:
            raise _broken(self.path, error) from None
        with _safetensors(self.path) as file:
            return {str(name): file.get_tensor(stored) for name, stored in state.items()}

    def outlines(self, state: Mapping[Any, Any]) -> dict[str, Tensor]:
        """Return the tensors of ``state`` as meta tensors, reading only their shapes."""
        with _safetensors(self.path) as file:
            shapes = {str(name): file.get_slice(stored).get_shape() for name, stored in state.items()}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is not a safetensors file or is cut off ({error})") from None


def _is_safetensors(path: Path) -> bool:
    """Recognize safetensors by the file extension, or by the length and first character of its JSON header."""
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return path.suffix == ".safetensors" or (start[8:] == b"{" and 2 <= length <= path.stat().st_size - 8)


def _refuse_forms(path: Path, state: Mapping[Any, Any]) -> None:
    for name, item in state.items():
        form = FORMS.get(item.name) if isinstance(item, StandIn) and item.called else None
        if form:
            raise CheckpointError(f"{path}: tensor {path_text(str(name))} is {form}; save it as a plain tensor")


def _tensor(item: Any, whole: Mapping[str, bytearray]) -> Tensor | None:
    if isinstance(item, Array):
        return None if item.value is None else torch.from_numpy(item.value.copy())
    if not isinstance(item, Stored):
        return None
    s = item.storage
    if s.count == 0:
        return torch.empty(item.size, dtype=s.dtype)
    flat = torch.frombuffer(whole[s.key], dtype=s.dtype, count=s.count)
    return flat.as_strided(item.size, item.stride, item.offset)


def _outline(item: Any) -> Tensor | None:
    if isinstance(item, Array) and item.value is not None:
        return torch.empty(item.value.shape, device="meta")
    return torch.empty(item.size, dtype=item.storage.dtype, device="meta") if isinstance(item, Stored) else None


def _part(file: BinaryIO, start: int, length: int) -> bytearray:
    file.seek(start)
    return bytearray(file.read(length))


def read_archive(path: str | Path) -> Archive:
    """Read a file of :func:`torch.save`, a pickle or safetensors without running code from it or unpacking it to disk.

    Raises:
        CheckpointError: the file is missing, of another format, truncated or inconsistent.
    """
    path = Path(path)
    require_file(path, CheckpointError)
    try:
        if _is_safetensors(path):
            with _safetensors(path) as opened:
                return SafeArchive(path, {name: name for name in opened.keys()}, Counter(), {})  # noqa: SIM118
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\3\4"
        return _read_zip(path) if zipped else _read_pickles(path)
    except (*WRONG, zipfile.BadZipFile, NotImplementedError) as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return CheckpointError(f"{path}: is not a checkpoint, or is broken or cut off ({reason})")


def _read_zip(path: Path) -> Archive:
    with zipfile.ZipFile(path) as file:
        integrity.check_digest(file)
        root = _root(file)
        entries = {info.filename: info for info in file.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("a compressed archive, which torch does not write")
        if sum(info.file_size for info in entries.values()) > path.stat().st_size:
            raise ValueError("an archive whose entries are larger than the file")
        if f"{root}byteorder" in entries and file.read(f"{root}byteorder") != b"little":
            raise ValueError("numbers in big-endian byte order")
        maker = Maker()
        machine = Machine(maker.builders, maker.storage)
        value = machine.run(io.BytesIO(file.read(f"{root}data.pkl")))
    inside = f"{root}data/"
    lengths = {n.removeprefix(inside): info.file_size for n, info in entries.items() if n.startswith(inside)}
    maker.check(lengths)
    return Archive(path, value, machine.set_aside, {})


def _root(file: zipfile.ZipFile) -> str:
    found = [name for name in file.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if not found:
        raise ValueError("a zip archive without data.pkl")
    return found[0].removesuffix("data.pkl")


def _read_pickles(path: Path) -> Archive:
    """Read a plain pickle or the older layout: magic number, protocol, machine, object, storage keys, storages."""
    maker = Maker()
    machine = Machine(maker.builders, maker.storage)
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        file = cast(BinaryIO, mapped)  # unlike a file, it allocates no memory for lengths beyond its end
        value = machine.run(file)
        spans: dict[str, tuple[int, int]] = {}
        if value == MAGIC:
            _, _, value, keys = (machine.run(file) for _ in range(4))
            spans = _spans(file, keys, maker.widths, len(mapped))
    lengths = {key: length for key, (_, length) in spans.items()}
    maker.check(lengths)
    return Archive(path, value, machine.set_aside, spans)


def _spans(file: BinaryIO, keys: Any, widths: Mapping[str, int], end: int) -> dict[str, tuple[int, int]]:
    """Return start and length of each storage, which follows its number of elements (8 bytes)."""
    spans = {}
    for key in keys:
        if not isinstance(key, str):  # a deep tuple would overflow the stack when it is hashed
            raise ValueError("a storage whose key is not a string")
        length = int.from_bytes(file.read(8), "little") * widths[key]
        start = file.tell()
        if start + length > end:
            raise ValueError(f"a storage has a length of {length}, but the file ends after {end - start}")
        spans[key] = (start, length)
        file.seek(start + length)
    return spans
