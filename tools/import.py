"""`tldet import` as a script."""

import sys

from tldet.cli import entry

entry(["import", *sys.argv[1:]])
