"""`tldet train` as a script."""

import sys

from tldet.cli.main import entry

entry(["train", *sys.argv[1:]])
