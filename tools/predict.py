"""`tldet predict` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["predict", *sys.argv[1:]]))
