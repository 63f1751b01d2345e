"""`tldet benchmark` as a script."""

import sys

from tldet.cli import entry

entry(["benchmark", *sys.argv[1:]])
