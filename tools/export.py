"""`tldet export` as a script."""

import sys

from tldet.cli.main import entry

entry(["export", *sys.argv[1:]])
