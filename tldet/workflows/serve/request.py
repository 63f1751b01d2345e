"""Request of ``tldet serve``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tldet.runtime import SCORE
from tldet.workflows.options import (
    ABOVE_0,
    COUNT,
    FROM_0,
    PROBABILITY,
    described,
    device_option,
    nms_option,
    option,
    overlap_option,
    precision_option,
    tiles_option,
)
from tldet.workflows.requests import Request


@dataclass(frozen=True, kw_only=True)
class ServeRequest(Request):
    """Arguments of ``tldet serve``."""

    checkpoint: str | Path = field(
        kw_only=False, metadata=described("a tldet checkpoint or an exported detector", metavar="CKPT", positional=True)
    )
    host: str = option(
        "address to listen on (default: 127.0.0.1, this machine only; 0.0.0.0: all addresses)",
        default="127.0.0.1",
        metavar="ADDRESS",
    )
    port: int = option("port (default: 8000; 0: any free port)", int, default=8000, metavar="P", interval="[0, 65535]")
    score: float = option(
        f"score threshold of requests that state none (default: {SCORE})",
        float,
        default=SCORE,
        metavar="T",
        interval=PROBABILITY,
    )
    batch_size: int = option(
        "largest number of images per batch (default: 4)", int, default=4, metavar="N", interval=COUNT
    )
    max_delay: float = option(
        "longest time in seconds to wait for further images of a batch (default: 0.005)",
        float,
        default=0.005,
        metavar="S",
        interval=FROM_0,
    )
    queue: int = option(
        "number of requests in the service from which further ones are answered with 429 (default: 128)",
        int,
        default=128,
        metavar="N",
        interval=COUNT,
    )
    timeout: float = option(
        "seconds for a request to arrive, and again for its answer (default: 30)",
        float,
        default=30.0,
        metavar="S",
        interval=ABOVE_0,
    )
    max_body: float = option(
        "largest request in megabytes (default: 20)", float, default=20.0, metavar="MB", interval=ABOVE_0
    )
    max_pixels: int = option(
        "largest number of pixels of an image (default: 50 million)",
        int,
        default=50_000_000,
        metavar="N",
        interval=COUNT,
    )
    url_hosts: Sequence[str] = option(
        "hosts from which images are fetched by URL (default: none, URLs are rejected)", metavar="HOST", many=True
    )
    tiles: int | None = tiles_option()
    overlap: float = overlap_option()
    nms_per_class: bool | None = nms_option()
    device: str = device_option()
    precision: str = precision_option("the faster one")
