"""Downloads to the cache of ``torch.hub``, checked against their SHA-256."""

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
    """Redirect handler that saves the SHA-256 that the hub states in its first response."""

    stated = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Read the SHA-256 from the headers and follow the redirect."""
        tag = str(headers.get("X-Linked-Etag") or "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", tag):
            self.stated = tag
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, path: Path) -> str:
    """Download a file; return the SHA-256 that the server states, or an empty string."""
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    with opener.open(url, timeout=30) as response, path.open("wb") as file:
        while block := response.read(1 << 20):
            file.write(block)
    return redirects.stated


def first_line(error: Exception) -> str:
    """Return the first line of an error message; the name of the error if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
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
