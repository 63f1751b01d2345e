"""The ``tldet`` command: one file per sub-command."""

from tldet.cli.main import entry

__all__ = ["entry"]
