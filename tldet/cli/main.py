"""The ``tldet`` command: sub-commands that parse arguments and call one function each.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once. A :class:`TldetError` becomes one
line and exit code 2; any other exception is a programming error and keeps its traceback.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from tldet.cli.arguments import add_import
from tldet.cli.commands import COMMANDS
from tldet.cli.parser import Parser
from tldet.cli.process import prepare_process
from tldet.cli.streams import discard_output, error_stream, output_stream
from tldet.errors import ConfigError, OutputError, TldetError, shorten
from tldet.system import search_path, signals
from tldet.system.signals import stop_signals

if TYPE_CHECKING:
    from rich.console import Console

_TOGETHER = ("train", "finetune", "pretrain")  # commands that several processes may run
NARROWEST = 40  # columns; tables cannot be printed on less, and nothing is printed with COLUMNS=0


class _Lines(logging.Handler):
    """A log record is one line, however narrow the terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(shorten(self.format(record)), markup=False, highlight=False)


def build_parser(given: Sequence[str] | None = None) -> Parser:
    """Build the parser of the ``tldet`` command.

    Args:
        given: the arguments to parse; only commands among them get their arguments, which takes most of the time. None
            builds all commands.
    """
    from tldet import __version__

    parser = Parser(prog="tldet", description="Transfer learning for object detection.")
    parser.add_argument("--version", action="version", version=f"tldet {__version__}")
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        hints = getattr(command, "HINTS", {})
        one = sub.add_parser(name, help=command.SUMMARY, description=command.SUMMARY, hints=hints)
        if given is None or name in given:
            command.arguments(one)
            for leaf in one.leaves():
                add_import(leaf)
        one.set_defaults(run=command.run)
    return parser


def entry(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command as a process of its own, which is set up for it first (:mod:`tldet.cli.process`)."""
    for stream in (sys.stdout, sys.stderr):  # escape characters that the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if argv is None else list(argv)
    prepare_process(given[0] if given else "")
    code = _ended(given)
    signals.ignore()  # a second one must not disturb the end of the process
    sys.exit(code)


def _ended(argv: Sequence[str]) -> Any:
    """Run :func:`main` and flush standard output, which Python would do later, with a traceback if it fails."""
    code: Any
    try:
        try:
            code = main(argv)
        except SystemExit as stop:  # of argparse, after a help text or a usage error
            code = stop.code
        output_stream().flush()
    except OutputError as error:  # the rest of a command's own output is reported by main
        error_stream().write(f"tldet: error: {error}\n")
        code = 2
    except BrokenPipeError:  # the reader has ended early, which is no error of the command
        discard_output(sys.stdout)
        code = 1
    return code


@stop_signals()
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    given = sys.argv[1:] if argv is None else list(argv)
    args = build_parser(given).parse_args(given)
    from rich.console import Console

    several = os.environ.get("WORLD_SIZE", "1") not in ("", "1")  # as torchrun sets it
    rank = os.environ.get("RANK", "0")
    beside = several and rank.isdecimal() and int(rank) > 0  # the main process speaks for all
    plain: dict[str, Any] = {
        "soft_wrap": True,
        "markup": False,
        "highlight": False,
    }  # a path with brackets in it stays itself
    console = Console(file=output_stream(), quiet=beside, **plain)
    errors = Console(file=error_stream(), stderr=True, **plain)
    for one in (console, errors):
        if one.width < NARROWEST:
            one.width = NARROWEST
    handler = _Lines(errors)
    logger = logging.getLogger("tldet")
    logger.setLevel(logging.WARNING if beside else logging.INFO)
    logger.addHandler(handler)
    try:
        if several and args.command not in _TOGETHER:
            raise ConfigError(f"runs in one process; torchrun is for {', '.join(_TOGETHER)}")
        _refuse_empty(args)
        _import_plugins(args.imports)
        args.run(args, console)
    except TldetError as error:
        if beside:
            return 2
        errors.print(f"tldet {args.command}: error: {error}", style="red", markup=False, highlight=False)
        return 2
    except (MemoryError, RuntimeError) as error:
        from tldet.system.out_of_memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        what = f"out of memory ({(str(error).splitlines() or ['no details'])[0]})"
        errors.print(f"tldet {args.command}: error: {what}; use smaller images or batches", style="red")
        return 2
    except KeyboardInterrupt as stop:
        errors.print(str(stop) or "interrupted", markup=False, highlight=False)
        return 130
    finally:
        logger.removeHandler(handler)
    return 0


def _import_plugins(names: Sequence[str]) -> None:
    """Import external packages; they are found in the current folder too, as are those that a config names."""
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # torch fails there too, not only relative paths
        raise ConfigError("the current folder has been removed; change to another one") from None
    if here not in search_path.FOLDERS:
        search_path.FOLDERS.append(here)
    if names:
        from tldet.plugins import import_plugins

        import_plugins(names)


def _refuse_empty(args: Namespace) -> None:
    """Reject empty arguments: an empty path would be the current folder, and an empty option would be ignored.

    Raises:
        ConfigError: an argument is empty, as with a shell variable that is not set.
    """
    for name, value in vars(args).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise ConfigError(f"argument {name.replace('_', '-')} is empty; give a value or leave it out")
