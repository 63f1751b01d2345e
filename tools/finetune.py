"""`tldet finetune` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["finetune", *sys.argv[1:]]))
