"""`tldet import` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["import", *sys.argv[1:]]))
