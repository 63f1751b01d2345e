"""HTTP application of ``tldet serve``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from tldet import __version__
from tldet.errors import DataError
from tldet.workflows.serve.guard import Guard, GuardSettings
from tldet.workflows.serve.inputs import RAW, form_image, json_image
from tldet.workflows.serve.service import Service

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": {"type": "string", "format": "binary"}}}
_BASE64 = {
    "type": "object",
    "properties": {"image": {"type": "string", "format": "byte"}, "url": {"type": "string", "format": "uri"}},
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _IMAGE,
            "application/octet-stream": _IMAGE,
            "multipart/form-data": {"schema": _FORM},
            "application/json": {"schema": _BASE64},
        },
    }
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Size of the image, and COCO results with category_name", "content": {"image/png": {}}},
    400: {"description": "The image cannot be read"},
    408: {"description": "The request was not received in time"},
    413: {"description": "The request is too large"},
    415: {"description": "The content type is not supported"},
    429: {"description": "The queue is full"},
    503: {"description": "The service is too busy"},
}


def build_app(service: Service) -> Guard:
    """Build the application with its limits."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(title="tldet", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    settings = service.settings
    guard = Guard(app, GuardSettings(round(settings.max_body * 1e6), settings.timeout, settings.queue), service.metrics)
    _add_predict(app, service)
    _add_status(app, service, guard)
    return guard


def _add_predict(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post("/predict", summary="Detect objects in an image", responses=ANSWERS, openapi_extra=BODY)
    async def predict(
        request: Request,
        score: Annotated[float, Query(ge=0, le=1, description="score threshold")] = settings.score,
        classes: Annotated[list[str], Query(description="names of the classes to return (default: all)")] = [],  # noqa: B006
        output: Annotated[Literal["json", "png"], Query(description="detections, or the drawn image")] = "json",
    ) -> Response:
        content = await _content(request, service)
        try:
            found = await service.detect(content, score, classes)
            if output == "png":
                return Response(await service.in_thread(service.drawing, content, found), media_type="image/png")
            text = await service.in_thread(lambda: json.dumps(service.records(found), ensure_ascii=False))
            return Response(text.encode(errors="backslashreplace"), media_type="application/json")
        except (DataError, ValueError) as error:
            raise HTTPException(400, str(error)) from None
        except (asyncio.TimeoutError, MemoryError):
            raise HTTPException(503, "the service is too busy; try again later", {"retry-after": "1"}) from None


async def _content(request: Request, service: Service) -> bytes:
    """Return the image of a request.

    Raises:
        HTTPException: the request contains no image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await form_image(request)
    body = await request.body()
    if kind == "application/json":
        limit = round(service.settings.max_body * 1e6)
        return await service.in_thread(json_image, body, service.settings.url_hosts, limit)
    if kind not in RAW and not kind.startswith("image/"):
        raise HTTPException(415, "send an image, multipart/form-data, or JSON with a base64-encoded image")
    return body


def _add_status(app: FastAPI, service: Service, guard: Guard) -> None:
    html = (files("tldet.workflows.serve") / "page.html").read_text(encoding="utf-8")
    headers = {"content-security-policy": _policy(html), "x-content-type-options": "nosniff"}

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(html, headers=headers)

    @app.get("/health", summary="Check that the process is running")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Check that the detector is running", responses={503: {"description": "Not ready"}})
    async def ready() -> Response:
        alive = service.batcher.alive
        return JSONResponse({"status": "ready" if alive else "not ready"}, 200 if alive else 503)

    @app.get("/model", summary="Classes and limits")
    async def model() -> dict[str, Any]:
        return service.describe()

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        gauges = {
            "tldet_requests_pending": ("Pending prediction requests.", guard.pending),
            "tldet_body_bytes": ("Size of all request bodies in memory.", guard.held),
        }
        return PlainTextResponse(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")


def _policy(html: str) -> str:
    """Return a content security policy that allows the page's own script and style only."""
    hashes = {}
    for tag in ("script", "style"):
        match = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        text = match[1] if match else ""
        hashes[tag] = b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return (
        f"default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; media-src blob:; "
        f"script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
