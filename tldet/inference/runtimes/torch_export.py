"""Inference with torch.export files."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tldet.errors import CheckpointError, ConfigError
from tldet.models.ops.nms import NMS_ROWS
from tldet.models.pooling import ROI_ALIGN_PYRAMID
from tldet.runtime.metadata import METADATA_KEY, parse_metadata
from tldet.runtime.session import unloadable
from tldet.system.inputs import require_file
from tldet.transfer.safe_unpickle.archives import read_archive

_PLAIN = (".json", ".txt", "/version", "/byteorder", "/archive_format", "/archive_version", "/.data/serialization_id")
_PICKLED = (b"PK\3\4", b"\x80")  # starts of torch.save's files and of pickles
_LARGEST = 64 << 30  # bytes of an archive, unpacked


class TorchExportSession:
    """A ``torch.export`` file, on the CPU.

    Args:
        path: the file; it is checked by :func:`check_archive` before torch reads it.
        device: ``auto`` or ``cpu``.

    Raises:
        CheckpointError: the file cannot be loaded, or contains anything but a graph and tensors.
        ConfigError: another device is requested.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        self._arguments = (path, device)
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device {device}: torch.export files run on cpu only, the device they are exported for")
        check_archive(path)
        for operator in (NMS_ROWS, ROI_ALIGN_PYRAMID):
            operator.define()
        extra: dict[str, Any] = {f"{METADATA_KEY}.json": ""}
        try:
            self._module: Any = torch.export.load(path, extra_files=extra).module()
        except Exception as error:  # of many types
            raise unloadable(path, error, "torch.export") from None
        text = extra[f"{METADATA_KEY}.json"]
        self.metadata = parse_metadata(text.decode() if isinstance(text, bytes) else text, path)
        self.path = path
        self.name = f"torch {torch.__version__} (torch.export) on cpu"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by path: the file is loaded again."""
        return type(self), self._arguments

    def run(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Run the graph."""
        return [one.numpy() for one in self._module(torch.from_numpy(images), torch.from_numpy(sizes))]


def check_archive(path: Path) -> None:
    """Check that a ``torch.export`` file contains only a graph, text and tensors.

    Pickles in it are read with the restricted unpickler; compiled code and objects other than tensors are rejected.

    Raises:
        CheckpointError: the file is damaged, or contains anything else.
    """
    require_file(path, CheckpointError)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > min(
                _LARGEST, 2 * path.stat().st_size + (1 << 20)
            ):
                raise CheckpointError(f"{path}: its entries unpack to more bytes than a file of this size can contain")
            for name in archive.namelist():
                _check_entry(path, archive, name)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise unloadable(path, error, "torch.export") from None


def _check_entry(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    inside = "/" + name.partition("/")[2]
    if name.endswith("/") or inside.endswith(_PLAIN) or inside.startswith("/extra/"):
        return
    if not inside.startswith(("/data/weights/", "/data/constants/", "/data/sample_inputs/")) or "custom_obj" in inside:
        raise CheckpointError(
            f"{path}: {name} is not part of a graph with tensors and could run code; the file was not loaded"
        )
    content = archive.read(name)
    if not content.startswith(_PICKLED) or inside.startswith("/data/weights/weight_"):
        return  # plain bytes of a tensor
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.pt"
        part.write_bytes(content)
        foreign = read_archive(part).set_aside
    if foreign:
        raise CheckpointError(
            f"{path}: {name} contains objects that could run code ({next(iter(foreign))}); the file was not loaded"
        )
