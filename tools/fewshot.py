"""`tldet fewshot` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["fewshot", *sys.argv[1:]]))
