"""`tldet test` as a script."""

import sys

from tldet.cli.main import entry

entry(["test", *sys.argv[1:]])
