"""`tldet merge` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["merge", *sys.argv[1:]]))
