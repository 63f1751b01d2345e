"""`tldet study` as a script."""

import sys

from tldet.cli import entry

entry(["study", *sys.argv[1:]])
