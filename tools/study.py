"""`tldet study` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["study", *sys.argv[1:]]))
