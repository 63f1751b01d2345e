"""Checks of files with weights: checksums of the bytes, and values and types of the tensors.

torch writes a CRC-32 for every entry of a checkpoint but does not compare it when it reads. A checkpoint of tldet also
has an entry with a digest over all others, and a safetensors file of tldet the CRC-32 of its tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

DIGEST = "tldet.sha256"  # entry of a checkpoint
CRC = "tldet.crc32"  # metadata key of a safetensors file
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip entry: signature, lengths of name and extra field
_THREADS = 4
FLOATING, COMPLEX, BOOLEAN, INTEGER = "floating-point", "complex", "boolean", "integer"
COUNTER = "num_batches_tracked"  # of BatchNorm: unused, and of any dtype after a conversion


def seal(file: BinaryIO) -> None:
    """Add the digest to an archive that ``torch.save`` wrote.

    Args:
        file: the archive, open for reading and writing.
    """
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(zipfile.ZipInfo(f"{root}/{DIGEST}"), _digest(archive))


def _digest(archive: zipfile.ZipFile) -> str:
    entries = (one for one in archive.infolist() if not one.filename.endswith(f"/{DIGEST}"))
    lines = sorted(f"{one.filename} {one.file_size} {one.CRC}" for one in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_digest(archive: zipfile.ZipFile) -> None:
    """Compare sizes and CRC-32s of the entries with the digest, if the archive has one.

    Raises:
        ValueError: they differ.
    """
    name = next((name for name in archive.namelist() if name.endswith(f"/{DIGEST}")), None)
    if name is not None and archive.read(name) != _digest(archive).encode():
        raise ValueError("its entries do not match its checksum")


def check_zip(path: Path) -> None:
    """Compare the bytes of every entry of an uncompressed archive with its CRC-32, and all with the digest.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: they differ, or the file is not an uncompressed archive.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        check_digest(archive)
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("a compressed archive, which torch does not write")
    if sum(entry.file_size for entry in entries) > len(whole):
        raise ValueError("an archive whose entries claim more than the file contains")
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for entry, intact in zip(entries, pool.map(partial(_intact, whole), entries), strict=True):
            if not intact:
                raise ValueError(f"entry {entry.filename} does not match its checksum")


def _intact(whole: memoryview, entry: zipfile.ZipInfo) -> bool:
    start = entry.header_offset + LOCAL_HEADER.size
    signature, *lengths = LOCAL_HEADER.unpack(whole[entry.header_offset : start])
    content = whole[start + sum(lengths) :][: entry.file_size]
    whole_entry = signature == b"PK\3\4" and len(content) == entry.file_size
    return whole_entry and zlib.crc32(content) == entry.CRC


def with_crc(content: bytes) -> bytes:
    """Add the CRC-32 of the tensors to the metadata of a safetensors file."""
    header, start = _header(content)
    crc = zlib.crc32(memoryview(content)[start:])
    header["__metadata__"] = {**header.get("__metadata__", {}), CRC: f"{crc:08x}"}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[start:]


def check_safetensors(path: Path) -> None:
    """Compare the tensors of a valid safetensors file with the CRC-32 in its metadata, if there is one.

    Raises:
        ValueError: they differ.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        header, start = _header(mapped)
        stated = header.get("__metadata__", {}).get(CRC)
        if stated is None:
            return
        with memoryview(mapped) as whole, whole[start:] as tensors:
            crc = zlib.crc32(tensors)
    if f"{crc:08x}" != stated:
        raise ValueError("its tensors do not match its checksum")


def _header(content: bytes | mmap.mmap) -> tuple[dict[str, Any], int]:
    """Return the JSON header of a safetensors file and the position of the first tensor."""
    start = 8 + int(struct.unpack("<Q", content[:8])[0])
    return json.loads(content[8:start]), start


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested containers with their dotted names, each container once."""
    waiting, seen = [(name, value)], set[int]()
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, Tensor):
            yield name, item
        elif isinstance(item, (Mapping, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            inside = item.items() if isinstance(item, Mapping) else enumerate(item)
            waiting += [(".".join(filter(None, (name, _word(key)))), one) for key, one in inside][::-1]


def _word(key: Any) -> str:
    return key if isinstance(key, str) else str(key) if isinstance(key, int) and abs(key) < 2**63 else "?"


def form_of(tensor: Tensor) -> str:
    """Describe a tensor that is not a plain array in memory (sparse, quantized, on the meta device); else empty."""
    if tensor.is_meta:
        return "has no values (it was saved from the meta device)"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.is_nested:
        return "is a nested tensor"
    return "" if tensor.layout == torch.strided else f"is sparse ({str(tensor.layout).removeprefix('torch.')})"


def is_finite(tensor: Tensor) -> bool:
    """Return True if a plain tensor contains neither NaN nor infinity."""
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    if tensor.dtype.itemsize == 1:  # float8 has no reductions
        tensor = tensor.float()
    return all(math.isfinite(float(end)) for end in torch.aminmax(tensor.detach()))


def _kind_of(dtype: torch.dtype) -> str:
    """Return the kind of numbers of a dtype."""
    if dtype.is_floating_point:
        return FLOATING
    if dtype.is_complex:
        return COMPLEX
    return BOOLEAN if dtype == torch.bool else INTEGER


def problem_of(own: Mapping[str, Tensor], given: Mapping[str, Any], *, values: bool = True) -> str:
    """Describe the first tensor that must not be loaded into a model.

    Args:
        own: tensors of the model.
        given: tensors to load, of the same names; others are ignored.
        values: also reject NaN and infinite values.

    Returns:
        A description with the name of the tensor, if it is not a plain array, of another kind of dtype than the
        model's, or not finite; else empty.
    """
    for name, tensor in own.items():
        other = given.get(name)
        if not isinstance(other, Tensor):
            continue
        if form := form_of(other):
            return f"{name} {form}"
        found, expected = _kind_of(other.dtype), _kind_of(tensor.dtype)
        if found != expected and not name.endswith(COUNTER):
            return f"{name} is {found} ({other.dtype}), in the model {expected} ({tensor.dtype})"
        if values and not is_finite(other):
            return f"{name} contains NaN or infinite values"
    return ""
