"""`tldet predict` as a script."""

import sys

from tldet.cli.main import entry

entry(["predict", *sys.argv[1:]])
