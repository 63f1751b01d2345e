"""`tldet finetune` as a script."""

import sys

from tldet.cli.main import entry

entry(["finetune", *sys.argv[1:]])
