"""``python -m tldet.cli``."""

from tldet.cli.main import entry

entry()
