"""`tldet extend` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["extend", *sys.argv[1:]]))
