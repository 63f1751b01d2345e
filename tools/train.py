"""`tldet train` as a script."""

import sys

from tldet.cli import entry

entry(["train", *sys.argv[1:]])
