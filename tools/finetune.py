"""`tldet finetune` as a script."""

import sys

from tldet.cli import entry

entry(["finetune", *sys.argv[1:]])
