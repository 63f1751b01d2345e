"""`tldet pretrain` as a script."""

import sys

from tldet.cli import main

sys.exit(main(["pretrain", *sys.argv[1:]]))
