"""``python -m benchmarks SUITE``: compare speed and memory of tldet with other libraries."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tldet.cli.arguments import file_name, parser_of
from tldet.cli.parser import Parser
from tldet.cli.process import prepare_process
from tldet.errors import TldetError
from tldet.workflows.options import COUNT, Option

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "compare speed and memory of tldet with other libraries"
_positive = parser_of(Option("", int, interval=COUNT))


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    from benchmarks.suites import QUICK, SUITES

    parser.formatter_class = RawDescriptionHelpFormatter
    lines = "\n".join(f"  {name:8} {text}" for name, text in SUITES.items())
    parser.epilog = f"suites:\n{lines}"
    parser.add_argument("suites", nargs="+", choices=list(SUITES), metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--json", type=file_name, metavar="FILE", help="output file with all numbers, JSON")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="rounds per comparison")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="recipe (default: all recipes of the suite); infer also takes checkpoints and exported detectors, which "
        "are compared with the first one",
    )
    parser.add_argument("--size", type=_positive, nargs=2, metavar=("H", "W"), help="image size in pixels")
    parser.add_argument("--batch", type=_positive, metavar="B", help="batch size")
    parser.add_argument("--data", metavar="DIR", help="dataset folder for the suite 'data'")


def run(args: Namespace, console: Console) -> None:
    """Run the suites."""
    from benchmarks.run import benchmark

    benchmark(
        args.suites,
        json=args.json,
        repeats=args.repeats,
        quick=args.quick,
        models=args.model,
        size=tuple(args.size) if args.size else None,
        batch=args.batch,
        data=args.data,
        console=console,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites of a command line; return the exit code: 0, or 2 for an error."""
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
