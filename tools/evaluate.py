"""`tldet evaluate` as a script."""

import sys

from tldet.cli import entry

entry(["evaluate", *sys.argv[1:]])
