"""Unpacking of untrusted archives: only inside a folder, and within limits.

Links, devices, encrypted and duplicate entries, and names that lead out of the folder are rejected. The limits apply to
the bytes that are written, not to the sizes that the archive states.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tldet.errors import DownloadError, TldetError
from tldet.system.output import make_folder, naming
from tldet.text import counted

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BLOCK = 1 << 20
_DAMAGED = (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
_IGNORED = ("__MACOSX", ".DS_Store")  # written by macOS
_LONGEST, _DEEPEST = 255, 32  # maximum length of a name in bytes, and depth of folders


@dataclass(frozen=True)
class UnpackLimits:
    """Limits of unpacking one archive.

    Attributes:
        files: number of files.
        size: total size of the files in bytes.
        ratio: total size of the files, as a multiple of the size of the archive.
    """

    files: int = 2_000_000
    size: int = 1 << 38
    ratio: float = 100.0


class _Entry(NamedTuple):
    """A file in an archive; ``content`` is None for a folder."""

    name: str
    content: IO[bytes] | None


def is_archive(name: str) -> bool:
    """Return True for the name of an archive that can be unpacked."""
    return name.lower().endswith(_ARCHIVES)


def unpack(archive: Path, folder: Path, limits: UnpackLimits | None = None) -> int:
    """Unpack a zip or tar archive into a folder; return the number of files.

    Args:
        archive: the archive.
        folder: an empty folder, which is created. After an error it contains part of the files.
        limits: None uses the defaults.

    Raises:
        DownloadError: the archive is damaged or too large, or has a forbidden entry; the message names the entry.
        OutputError: a file cannot be written.
    """
    work = _Unpacking(archive, folder, limits or UnpackLimits())
    entries = _zip_entries(archive) if archive.name.lower().endswith(".zip") else _tar_entries(archive)
    try:
        for entry in entries:
            work.write(entry)
    except TldetError:
        raise
    except (*_DAMAGED, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DownloadError(f"{archive.name}: is damaged or not an archive ({reason})") from None
    if not work.files:
        raise DownloadError(f"{archive.name}: contains no file")
    return work.files


class _Unpacking:
    """Writes the entries of an archive, within limits."""

    def __init__(self, archive: Path, folder: Path, limits: UnpackLimits) -> None:
        self.archive, self.folder, self.limits = archive, make_folder(folder), limits
        self.most = min(limits.size, int(limits.ratio * max(archive.stat().st_size, 1 << 16)))
        self.files, self.size = 0, 0
        self.taken: set[str] = set()

    def write(self, entry: _Entry) -> None:
        """Write a file, or create a folder."""
        path = self._path(entry.name)
        if path is None:
            return
        if entry.content is None:
            make_folder(path)
            return
        self.files += 1
        if self.files > self.limits.files:
            raise self._error(entry.name, f"the archive has more than {counted(self.limits.files, 'file')}")
        folded = str(path).casefold()
        if folded in self.taken or path.exists():
            raise self._error(entry.name, "occurs twice")
        self.taken.add(folded)
        make_folder(path.parent)
        self._copy(entry, path)

    def _copy(self, entry: _Entry, path: Path) -> None:
        assert entry.content is not None
        with naming(path):
            target = path.open("xb")
        with entry.content as source, target:
            while block := source.read(_BLOCK):
                self.size += len(block)
                if self.size > self.most:
                    raise self._error(entry.name, f"the archive unpacks to more than the limit of {self.most:,} bytes")
                with naming(path):
                    target.write(block)

    def _path(self, name: str) -> Path | None:
        """Return the path of an entry; None for an entry that is ignored."""
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ":" in name or ".." in parts or not name.isprintable():
            raise self._error(name, "leads out of the folder, or has characters that are not allowed in file names")
        if any(part in _IGNORED for part in parts) or not parts:
            return None
        if len(parts) > _DEEPEST or any(len(part.encode(errors="replace")) > _LONGEST for part in parts):
            raise self._error(name, "has a name that is too long")
        return self.folder.joinpath(*parts)

    def _error(self, name: str, text: str) -> DownloadError:
        return DownloadError(f"{self.archive.name}: entry {name!r}: {text}; the archive is not unpacked")


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind and kind not in (stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, info.filename)
            if info.flag_bits & 1:
                raise DownloadError(f"{archive.name}: entry {info.filename!r} is encrypted; unpack it yourself")
            yield _Entry(info.filename, None if info.is_dir() else opened.open(info))


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive, "r:*") as opened:
        for info in opened:
            if not (info.isfile() or info.isdir()):
                raise _refused(archive, info.name)
            yield _Entry(info.name, opened.extractfile(info) if info.isfile() else None)


def _refused(archive: Path, name: str) -> DownloadError:
    return DownloadError(f"{archive.name}: entry {name!r} is a link or a device; the archive is not unpacked")
