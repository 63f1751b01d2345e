"""`tldet evaluate` as a script."""

import sys

from tldet.cli.main import entry

entry(["evaluate", *sys.argv[1:]])
