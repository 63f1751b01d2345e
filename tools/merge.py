"""`tldet merge` as a script."""

import sys

from tldet.cli import entry

entry(["merge", *sys.argv[1:]])
