"""``python -m tldet_runtime``."""

import sys

from .command import run_command

sys.exit(run_command())
