"""`tldet pretrain` as a script."""

import sys

from tldet.cli import entry

entry(["pretrain", *sys.argv[1:]])
