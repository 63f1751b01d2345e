"""``python -m benchmarks SUITE``: time tldet against other packages."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tldet.cli.arguments import file_name, positive_int
from tldet.cli.parser import Parser
from tldet.cli.process import prepare_process
from tldet.errors import TldetError

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "time the parts beside what else there is"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    from benchmarks.suites import QUICK, SUITES

    parser.formatter_class = RawDescriptionHelpFormatter
    lines = "\n".join(f"  {name:8} {text}" for name, text in SUITES.items())
    parser.epilog = f"suites:\n{lines}"
    parser.add_argument("suites", nargs="+", choices=list(SUITES), metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--json", type=file_name, metavar="F", help="write every number there")
    parser.add_argument("--repeats", type=positive_int, metavar="N", help="rounds of each comparison")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only this recipe; repeatable")
    parser.add_argument("--size", type=positive_int, nargs=2, metavar=("H", "W"), help="images of this size")
    parser.add_argument("--batch", type=positive_int, metavar="B", help="images at a time")
    parser.add_argument("--data", metavar="DIR", help="read the images of this COCO-format folder (suite data)")


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from benchmarks.run import benchmark

    benchmark(
        args.suites,
        json_path=args.json,
        repeats=args.repeats,
        quick=args.quick,
        models=args.model,
        size=tuple(args.size) if args.size else None,
        batch=args.batch,
        data=args.data,
        console=console,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites that the arguments name; returns the exit code: 0, or 2 for bad input."""
    prepare_process("benchmark")
    parser = Parser(prog="python -m benchmarks", description=SUMMARY)
    arguments(parser)
    args = parser.parse_args(argv)
    from rich.console import Console

    logging.basicConfig(format="%(message)s")
    logging.getLogger("tldet").setLevel(logging.INFO)
    try:
        run(args, Console(soft_wrap=True))
    except TldetError as error:
        sys.stderr.write(f"benchmarks: error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
