"""``python -m tldet_runtime``."""

import sys

from .command import run_command

if __name__ == "__main__":
    sys.exit(run_command())
