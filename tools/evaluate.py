"""`tldet evaluate` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
