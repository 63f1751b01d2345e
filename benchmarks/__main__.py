"""``python -m benchmarks SUITE``: compare speed and memory of tldet with other libraries."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of, file_name, parser_of
from tldet.cli.parser import Parser
from tldet.cli.process import prepare_process
from tldet.errors import TldetError
from tldet.system.signals import stop_signals
from tldet.workflows.options import COUNT, Option

if TYPE_CHECKING:
    from rich.console import Console

QUALITY = "AP by training time on five small datasets, compared with a torchvision loop (hours)"
SUMMARY = "compare speed and memory of tldet with other libraries"
_positive = parser_of(Option("", int, interval=COUNT))


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    from benchmarks.suites import QUICK, SUITES

    parser.formatter_class = RawDescriptionHelpFormatter
    lines = "\n".join(f"  {name:8} {text}" for name, text in SUITES.items())
    parser.epilog = f"suites:\n{lines}\n\nalso: python -m benchmarks quality --help\n  {QUALITY}"
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


def _suites(argv: Sequence[str]) -> Callable[[Console], object]:
    """Parse a command line with suites; return the function that runs them."""
    parser = Parser(prog="python -m benchmarks", description=SUMMARY)
    arguments(parser)
    args = parser.parse_args(argv)
    return lambda console: run(args, console)


def _quality(argv: Sequence[str]) -> Callable[[Console], object]:
    """Parse a command line of the benchmark "quality", which has options of its own."""
    from benchmarks.quality.request import QualityRequest

    parser = Parser(prog="python -m benchmarks quality", description=QUALITY)
    add_options(parser, QualityRequest)
    args = parser.parse_args(argv)

    def start(console: Console) -> None:
        from benchmarks.quality.run import quality

        quality(QualityRequest(**arguments_of(args, QualityRequest, console)))

    return start


@stop_signals()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites of a command line; return the exit code: 0, 2 for bad input, or 130 after Ctrl-C."""
    prepare_process("benchmark")
    given = sys.argv[1:] if argv is None else list(argv)
    start = _quality(given[1:]) if given[:1] == ["quality"] else _suites(given)
    from rich.console import Console

    logging.basicConfig(format="%(message)s")
    logging.getLogger("tldet").setLevel(logging.INFO)
    try:
        start(Console(soft_wrap=True))
    except TldetError as error:
        sys.stderr.write(f"benchmarks: error: {error}\n")
        return 2
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"{stop or 'interrupted'}\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
