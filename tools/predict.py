"""`tldet predict` as a script."""

import sys

from tldet.cli import entry

entry(["predict", *sys.argv[1:]])
