"""``tldet serve``: run the HTTP service."""

from __future__ import annotations

import logging
import socket
from importlib.util import find_spec
from typing import Any

from tldet.errors import ConfigError
from tldet.inference.loading import load
from tldet.text import are
from tldet.workflows.requests import takes
from tldet.workflows.serve.request import ServeRequest

log = logging.getLogger(__name__)
_MODULES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
IDLE_SECONDS = 15  # after which an idle connection is closed
GRACE = 2  # seconds between the time limit of a request and closing its connection, so that the error can be sent


@takes(ServeRequest)
def serve(request: ServeRequest) -> None:
    """Serve a detector over HTTP until Ctrl-C or SIGTERM; pending requests are then completed.

    Raises:
        TldetError: the checkpoint is invalid, a package is missing, or the address cannot be used.
    """
    if missing := [package for module, package in _MODULES.items() if find_spec(module) is None]:
        raise ConfigError(f"{', '.join(missing)} {are(len(missing))} not installed: pip install 'tldet[serve]'")
    listening = _listening(request.host, request.port)
    try:
        with listening:
            _run(request, listening)
    except KeyboardInterrupt:  # uvicorn raises the signal again after its shutdown
        log.info("stopped")


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Raises:
        ConfigError: the address cannot be used.
    """
    found: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        if found is not None:
            found.close()
        raise ConfigError(f"--host {host} --port {port}: {error.strerror or error}; choose another address") from None
    return found


def _run(request: ServeRequest, listening: socket.socket) -> None:
    import uvicorn

    from tldet.workflows.serve.app import build_app
    from tldet.workflows.serve.guard import HEADER_BYTES
    from tldet.workflows.serve.protocol import limited_protocol
    from tldet.workflows.serve.service import Service

    predictor = load(
        request.checkpoint,
        request.device,
        request.precision,
        nms_per_class=request.nms_per_class,
        max_pixels=request.max_pixels,
        tiles=request.tiles,
        overlap=request.overlap,
    )
    service = Service(predictor, request)
    service.warm_up()
    options: dict[str, Any] = {"log_config": None, "log_level": "error", "access_log": False, "ws": "none"}
    config = uvicorn.Config(
        build_app(service),
        http=limited_protocol(request.timeout + GRACE),
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(request.timeout)),
        proxy_headers=False,
        server_header=False,
        **options,
    )
    listening.listen(config.backlog)  # from now on, connections wait for the first event of the server
    host, port = listening.getsockname()[:2]
    log.info("device %s, precision %s (%s)", predictor.device, predictor.precision.name, predictor.precision.reason)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    log.info("serving at %s (press Ctrl-C to stop)", address)
    if request.console:
        request.console.print(address, markup=False, highlight=False)
    uvicorn.Server(config).run(sockets=[listening])
