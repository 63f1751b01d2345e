"""`tldet test` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["test", *sys.argv[1:]]))
