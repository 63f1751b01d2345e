"""Images in requests: raw bytes, forms, base64 and URLs."""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

_FIELDS = ("image", "file")  # names of form fields
RAW = ("", "application/octet-stream", "binary/octet-stream")
URL_SECONDS = 10  # without a response
_BLOCK = 1 << 16


async def form_image(request: Request) -> bytes:
    """Return the image of a form.

    Raises:
        HTTPException: the form is malformed or has no image.
    """
    try:
        async with request.form(max_files=4, max_fields=16) as form:
            given = next((form[name] for name in _FIELDS if name in form), None)
            if isinstance(given, UploadFile):
                return await given.read()
    except (MultiPartException, ValueError, KeyError) as error:
        raise HTTPException(400, f"the form cannot be read: {error}") from None
    raise HTTPException(400, "the form has no file in the field 'image'")


def json_image(body: bytes, hosts: Sequence[str], limit: int) -> bytes:
    """Return the image of a JSON body ``{"image": base64}`` or ``{"url": ...}``.

    Args:
        body: the JSON.
        hosts: hosts from which images are fetched.
        limit: largest image in bytes.

    Raises:
        HTTPException: the JSON is malformed, or the URL is not allowed or cannot be fetched.
    """
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not valid JSON") from None
    if not isinstance(given, dict) or not any(isinstance(given.get(name), str) for name in ("image", "url")):
        raise HTTPException(400, 'the body must be {"image": "<base64>"}' + (' or {"url": "..."}' if hosts else ""))
    if isinstance(given.get("image"), str):
        return _decoded(given["image"])
    return _fetched(given["url"], hosts, limit)


def _decoded(text: str) -> bytes:
    """Decode base64 or a data URL."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(400, "image is not valid base64") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Handler that does not follow redirects, which could lead to another host."""

    def redirect_request(self, *_: Any) -> None:
        """Return None: the redirect is an error."""


def _fetched(url: str, hosts: Sequence[str], limit: int) -> bytes:
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in ("http", "https") and parts.hostname in hosts
    except ValueError:
        allowed = False
    if not hosts:
        raise HTTPException(403, "images by URL are disabled; send the image itself")
    if not allowed:
        raise HTTPException(403, f"images are fetched only from {', '.join(hosts)}, over http or https")
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    content = bytearray()
    try:
        with opener.open(url, timeout=URL_SECONDS) as answer:
            while block := answer.read(_BLOCK):
                content += block
                if len(content) > limit:
                    raise HTTPException(413, f"the image is larger than {limit / 1e6:g} MB")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise HTTPException(400, f"the image cannot be fetched: {getattr(error, 'reason', None) or error}") from None
    return bytes(content)
