"""Files from the network, in the cache of torch's hub, each checked against its SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import urllib.request
from pathlib import Path
from typing import Any

import torch

from tldet.errors import CheckpointError
from tldet.system.inputs import is_file
from tldet.system.output import Replacement

log = logging.getLogger(__name__)


def cache_path(url: str) -> Path:
    """Where the file of a URL lies once it was downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def fetch_url(url: str, digest: str) -> Path:
    """Return a file of the cache (``torch.hub``'s checkpoints folder), downloaded if it is missing.

    Args:
        url: its address.
        digest: SHA-256 or its beginning; empty leaves it unchecked.

    Raises:
        CheckpointError: no network, or another file came than was meant.
    """
    path = cache_path(url)
    if not is_file(path):
        _fetch(url, path, digest)
    _check_hash(path, digest, url)
    return path


def fetch_to(path: Path, url: str) -> Path:
    """Return a cached file whose digest is not known in advance, downloaded if it is missing.

    The hub states the SHA-256 of a file, which the download must have. The digest of the first download is kept next to
    the file, and later uses are checked against it. A file that was placed by hand has none and is not checked.

    Raises:
        CheckpointError: no network, or the file is not the one that was downloaded or stated.
    """
    kept = path.with_name(f"{path.name}.sha256")
    if not is_file(path):
        _fetch(url, path, "")
        with Replacement(kept) as new:
            new.name.write_text(file_hash(path), encoding="ascii")
    elif is_file(kept):
        _check_hash(path, kept.read_text(encoding="ascii", errors="replace").strip(), url)
    return path


def _fetch(url: str, path: Path, digest: str) -> None:
    log.info("downloading %s to %s", url, path)
    try:
        with Replacement(path) as new:
            stated = _download(url, new.name)
            _check_hash(new.name, digest or stated, url)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or first_line(error)
        raise CheckpointError(f"cannot download {url} ({reason}); place the file at {path} and run again") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps the SHA-256 that the hub states in the first answer."""

    stated = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Read the header and go on."""
        tag = str(headers.get("X-Linked-Etag") or "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", tag):
            self.stated = tag
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, path: Path) -> str:
    """Download a file; return the SHA-256 that the server states, or an empty string."""
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    with opener.open(url, timeout=30) as answer, path.open("wb") as file:
        while block := answer.read(1 << 20):
            file.write(block)
    return redirects.stated


def first_line(error: Exception) -> str:
    """The beginning of what an error says; its name where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _check_hash(path: Path, digest: str, url: str) -> None:
    found = file_hash(path)
    if not found.startswith(digest):
        message = f"{path}: its SHA-256 is {found[:16]}..., {url} should have {digest}; remove it and retry"
        raise CheckpointError(message)
