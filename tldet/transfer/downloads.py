"""Downloads of weights to the cache of ``torch.hub``, verified by their SHA-256."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from tldet.errors import CheckpointError, DownloadError, OutputError
from tldet.system.downloads import download
from tldet.system.inputs import file_hash, is_file
from tldet.system.output import Replacement

log = logging.getLogger(__name__)


def cache_path(url: str) -> Path:
    """Return the path of a downloaded URL in the cache of ``torch.hub``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def fetch_url(url: str, digest: str) -> Path:
    """Return a file from the cache of ``torch.hub``; download it if necessary.

    Args:
        url: URL of the file.
        digest: SHA-256 or its first digits; empty for no check.

    Raises:
        CheckpointError: the download fails, or the hash differs.
    """
    path = cache_path(url)
    if not is_file(path):
        _fetch(url, path, digest)
    _check_hash(path, digest, url)
    return path


def fetch_to(path: Path, url: str) -> Path:
    """Return a cached file whose SHA-256 is not known in advance; download it if necessary.

    A download is checked against the SHA-256 that the hub states. Its digest is saved next to the file, and later uses
    are checked against it. Files placed there by hand have no saved digest and are not checked.

    Raises:
        CheckpointError: the download fails, or the hash differs.
    """
    kept = path.with_name(f"{path.name}.sha256")
    if not is_file(path):
        digest = _fetch(url, path, "")
        with Replacement(kept) as new:
            new.name.write_text(digest, encoding="ascii")
    elif is_file(kept):
        _check_hash(path, kept.read_text(encoding="ascii", errors="replace").strip(), url)
    return path


def _fetch(url: str, path: Path, digest: str) -> str:
    """Download a file; return its SHA-256."""
    log.info("downloading %s to %s", url, path)
    try:
        return download(url, path, digest)
    except (DownloadError, OutputError) as error:
        raise CheckpointError(f"cannot download {url} ({error}); place the file at {path} and run again") from None


def first_line(error: Exception) -> str:
    """Return the first line of an error message; the name of the error if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _check_hash(path: Path, digest: str, url: str) -> None:
    found = file_hash(path)
    if not found.startswith(digest):
        message = f"{path}: its SHA-256 is {found[:16]}..., but {url} has {digest}; remove the file and try again"
        raise CheckpointError(message)
