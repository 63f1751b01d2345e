"""Errors that a user can correct; the rules of their messages are those of :mod:`tldet.runtime.errors`."""

from __future__ import annotations

from tldet.runtime.errors import CheckpointError as CheckpointError
from tldet.runtime.errors import ConfigError as ConfigError
from tldet.runtime.errors import DataError as DataError
from tldet.runtime.errors import NotAnImage as NotAnImage
from tldet.runtime.errors import OutputError as OutputError
from tldet.runtime.errors import TldetError as TldetError
from tldet.runtime.errors import shorten as shorten


class DownloadError(TldetError):
    """A file cannot be downloaded."""


class TrainingError(TldetError):
    """Training cannot start or continue (a non-finite loss, nothing to resume, ...)."""
