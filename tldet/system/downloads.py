"""Downloads over HTTP that resume after an interruption and are verified by length and digest.

The bytes received so far are kept in ``.NAME.part`` next to the file, with the URL and the version that the server
states (``ETag`` or ``Last-Modified``). A later download requests only the remaining bytes of this version.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldet.errors import DownloadError
from tldet.system.inputs import file_hash, is_file
from tldet.system.locks import waiting_lock
from tldet.system.output import make_folder, naming
from tldet.text import counted

log = logging.getLogger(__name__)
_TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds before each retry after an attempt without progress
MOST_BYTES = 1 << 38  # 256 GiB
_BLOCK = 1 << 20
_AGAIN = (408, 429, 500, 502, 503, 504)  # HTTP codes of temporary problems
Progress = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of a download.

    Attributes:
        timeout: seconds without data after which a connection is closed.
        pauses: seconds before each retry after an attempt without progress; their number limits the retries.
        most: largest number of bytes.
    """

    timeout: float = _TIMEOUT
    pauses: Sequence[float] = PAUSES
    most: int = MOST_BYTES


class _InterruptedError(Exception):
    """A connection error after which a retry may succeed."""


def download(
    url: str, path: Path, digest: str = "", *, limits: DownloadLimits | None = None, progress: Progress | None = None
) -> str:
    """Download a file, or the rest of it, and return its SHA-256; a file that exists already is only hashed.

    If another process is downloading the same file, wait for it.

    Args:
        url: an http or https URL. Redirects are followed, but not from https to http.
        path: the file.
        digest: ``sha256:HEX``, ``md5:HEX``, or the first digits of the SHA-256; empty for no check. A SHA-256 that the
            server states (Hugging Face's ``X-Linked-Etag``) is checked too.
        limits: None uses the defaults.
        progress: called with the bytes received so far and the total, if it is known.

    Raises:
        DownloadError: the file cannot be downloaded, is too large, or has another digest.
        OutputError: the file cannot be written.
    """
    if _scheme(url) not in ("http", "https"):
        raise DownloadError("is not an http or https URL")
    make_folder(path.parent)
    job = _Job(url, path.with_name(f".{path.name}.part"), limits or DownloadLimits(), progress or (lambda *_: None))
    with waiting_lock(job.part.with_name(f"{job.part.name}.lock")):
        if not is_file(path):
            stated = job.run()
            _check(job, digest, stated)
            with naming(path):
                job.part.replace(path)
                job.mark.unlink(missing_ok=True)
    return file_hash(path)


class _Job:
    """A download in progress."""

    def __init__(self, url: str, part: Path, limits: DownloadLimits, progress: Progress) -> None:
        self.url, self.part, self.limits, self.progress = url, part, limits, progress
        self.mark = part.with_name(f"{part.name}.json")
        self.redirects = _Redirects()
        self.opener = urllib.request.build_opener(self.redirects)

    def run(self) -> str:
        """Receive the whole file into ``part``; return the SHA-256 that the server states, or an empty text."""
        failed, reached = 0, self._size()
        while True:
            try:
                self._receive(first=failed == 0 and reached == 0)
                return self.redirects.stated
            except _InterruptedError as problem:
                size = self._size()
                failed = 0 if size > reached else failed + 1
                reached = max(reached, size)
                if failed > len(self.limits.pauses):
                    raise DownloadError(
                        f"{problem} after {counted(size, 'byte')}; run the command again to resume"
                    ) from None
                log.info("%s: %s after %s; resuming", self.url, problem, counted(size, "byte"))
                time.sleep(self.limits.pauses[max(failed - 1, 0)] if self.limits.pauses else 0)

    def _receive(self, *, first: bool) -> None:
        """Receive the rest of the file; the first connection of a download must succeed."""
        kept = self._kept()
        with self._open(kept, first=first) as response:
            begin = _begin(response, kept, self._size())
            length = response.headers.get("Content-Length", "")
            total = begin + int(length) if length.isdecimal() else None
            if (total or 0) > self.limits.most:
                raise DownloadError(f"has {counted(total or 0, 'byte')}, more than the limit of {self.limits.most:,}")
            if not begin:
                self._note(response, total)
            self._copy(response, begin, total)

    def _open(self, kept: dict[str, Any], *, first: bool) -> Any:
        headers = {"User-Agent": "tldet", "Accept-Encoding": "identity"}
        if kept:
            headers |= {"Range": f"bytes={self._size()}-", "If-Range": kept["version"]}
        try:
            return self.opener.open(urllib.request.Request(self.url, headers=headers), timeout=self.limits.timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416 and kept:  # the file has become shorter
                self.discard()
                raise _InterruptedError("the file has changed") from None
            if error.code in _AGAIN:
                raise _InterruptedError(f"HTTP error {error.code}") from None
            reason = " ".join(str(error.reason).split())
            raise DownloadError(f"HTTP error {error.code} {reason}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            if first:
                raise DownloadError(reason.splitlines()[0]) from None
            raise _InterruptedError(reason.splitlines()[0]) from None
        except ValueError as error:  # a malformed URL
            raise DownloadError(str(error).splitlines()[0]) from None

    def _copy(self, response: Any, begin: int, total: int | None) -> None:
        received = begin
        with naming(self.part), self.part.open("ab" if begin else "wb") as file:
            while block := self._read(response):
                received += len(block)
                if received > self.limits.most:
                    raise DownloadError(f"has more than the limit of {self.limits.most:,} bytes")
                file.write(block)
                self.progress(received, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and received < total:
            raise _InterruptedError("connection closed")

    def _read(self, response: Any) -> bytes:
        try:
            return bytes(response.read(_BLOCK))
        except http.client.IncompleteRead:
            raise _InterruptedError("connection closed") from None
        except TimeoutError:
            raise _InterruptedError(f"no data for {self.limits.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(str(error) or type(error).__name__) from None

    def _size(self) -> int:
        return self.part.stat().st_size if is_file(self.part) else 0

    def _kept(self) -> dict[str, Any]:
        """Return URL, version and total size of a partial download; empty if it cannot be resumed."""
        try:
            kept = json.loads(self.mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        usable = isinstance(kept, dict) and kept.get("url") == self.url and kept.get("version") and self._size()
        return kept if usable else {}

    def _note(self, response: Any, total: int | None) -> None:
        """Record which version of the file is being received."""
        tag = response.headers.get("ETag") or ""
        version = tag if tag.startswith('"') else response.headers.get("Last-Modified") or ""
        with naming(self.mark):
            self.part.unlink(missing_ok=True)  # of another version
            self.mark.write_text(json.dumps({"url": self.url, "version": version, "total": total}), encoding="utf-8")

    def discard(self) -> None:
        """Remove the bytes received so far."""
        self.part.unlink(missing_ok=True)
        self.mark.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects that stay on http and https and do not leave https."""

    stated = ""  # SHA-256 in the header of a redirect

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Check the new URL and read the SHA-256 that Hugging Face states in its first response."""
        tag = str(headers.get("X-Linked-Etag") or "").strip('"')
        self.stated = tag if re.fullmatch("[0-9a-f]{64}", tag) else self.stated
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if _scheme(newurl) not in allowed:
            raise DownloadError(f"redirect from {req.type} to {newurl} refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _begin(response: Any, kept: dict[str, Any], requested: int) -> int:
    """Return the position in the file at which a response begins: 0, or ``requested``.

    Raises:
        DownloadError: it is another range of the file, or a range of another version.
    """
    if response.status != 206:
        return 0
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not kept or found is None or int(found[1]) != requested or found[2] not in ("*", str(kept["total"])):
        raise DownloadError("the server sent another range of the file than requested")
    return requested


def _scheme(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).scheme
    except ValueError as error:  # such as an IPv6 address without its end
        raise DownloadError(str(error)) from None


def _check(job: _Job, digest: str, stated: str) -> None:
    for expected, source in ((stated, "the server states"), (digest, "expected")):
        kind, _, value = expected.rpartition(":")
        if not value:
            continue
        found = file_hash(job.part, kind or "sha256")
        if not found.startswith(value.lower()):
            job.discard()
            name = (kind or "sha256").upper().replace("SHA", "SHA-")
            raise DownloadError(f"its {name} is {found}, but {source} {value}; the download was removed")
