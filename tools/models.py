"""`tldet models` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["models", *sys.argv[1:]]))
