"""`tldet benchmark` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["benchmark", *sys.argv[1:]]))
