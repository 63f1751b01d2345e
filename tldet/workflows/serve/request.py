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
        f"default score threshold of requests (default: {SCORE})",
        float,
        default=SCORE,
        metavar="T",
        interval=PROBABILITY,
    )
    batch_size: int = option(
        "largest number of images per batch (default: 4)", int, default=4, metavar="N", interval=COUNT
    )
    max_delay: float = option(
        "maximum time in seconds to wait until a batch is full (default: 0.005)",
        float,
        default=0.005,
        metavar="S",
        interval=FROM_0,
    )
    queue: int = option(
        "maximum number of pending requests; more are rejected with status 429 (default: 128)",
        int,
        default=128,
        metavar="N",
        interval=COUNT,
    )
    timeout: float = option(
        "time limit in seconds for receiving a request, and for computing its response (default: 30)",
        float,
        default=30.0,
        metavar="S",
        interval=ABOVE_0,
    )
    max_body: float = option(
        "maximum size of a request in megabytes (default: 20)", float, default=20.0, metavar="MB", interval=ABOVE_0
    )
    max_pixels: int = option(
        "reject images with more pixels (default: 50 million)",
        int,
        default=50_000_000,
        metavar="N",
        interval=COUNT,
    )
    url_hosts: Sequence[str] = option(
        "hosts from which images may be fetched by URL (default: none, URLs are rejected)", metavar="HOST", many=True
    )
    tiles: int | None = tiles_option()
    overlap: float = overlap_option()
    nms_per_class: bool | None = nms_option()
    device: str = device_option()
    precision: str = precision_option("auto, bf16 or fp16 on a GPU, the faster of fp32 and bf16 on a CPU")
