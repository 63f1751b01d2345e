"""`tldet train` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
