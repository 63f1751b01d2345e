"""`tldet fewshot` as a script."""

import sys

from tldet.cli import entry

entry(["fewshot", *sys.argv[1:]])
