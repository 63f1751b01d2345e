"""`tldet models` as a script."""

import sys

from tldet.cli import entry

entry(["models", *sys.argv[1:]])
