"""`tldet extend` as a script."""

import sys

from tldet.cli import entry

entry(["extend", *sys.argv[1:]])
