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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tldet.cli.arguments import add_import
from tldet.cli.commands import COMMANDS
from tldet.cli.parser import Parser
from tldet.cli.process import prepare_process
from tldet.errors import ConfigError, OutputError, TldetError, shorten
from tldet.runtime.streams import discard_output, error_stream, output_stream
from tldet.system import signals
from tldet.system.signals import stop_signals

if TYPE_CHECKING:
    from rich.console import Console

_DISTRIBUTED = ("train", "finetune", "pretrain", "predict")  # commands that torchrun may start
_INDEPENDENT = ("predict",)  # its processes have inputs of their own, and so errors of their own
NARROWEST = 40  # columns; rich prints no table on less, and nothing with COLUMNS=0


class _Lines(logging.Handler):
    """Handler that prints a log record as one line, for any width of the terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(
            shorten(self.format(record), one_line=record.exc_info is None), markup=False, highlight=False
        )


def build_parser(given: Sequence[str] | None = None) -> Parser:
    """Build the parser of the ``tldet`` command.

    Args:
        given: arguments to parse; only commands among them get their arguments, because this takes most of the time.
            None builds all commands.
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
    """Run a command in this process, which is set up first (:mod:`tldet.cli.process`)."""
    for stream in (sys.stdout, sys.stderr):  # escape characters that the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if argv is None else list(argv)
    prepare_process(given[0] if given else "")
    code = _ended(given)
    signals.ignore()  # a second signal must not disturb the end of the process
    sys.exit(code)


def _ended(argv: Sequence[str]) -> Any:
    """Run :func:`main` and flush standard output here, where a failed write is no traceback."""
    code: Any
    try:
        try:
            code = main(argv)
        except SystemExit as stop:  # from argparse, after a help text or a usage error
            code = stop.code
        output_stream().flush()
    except OutputError as error:  # of the last lines; main reports others
        error_stream().write(f"tldet: error: {error}\n")
        code = 2
    except BrokenPipeError:  # the reader has ended early; no error of the command
        discard_output(sys.stdout)
        code = 1
    return code


@stop_signals()
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, 1 if a check fails, 2 for bad input, 130 after Ctrl-C."""
    given = sys.argv[1:] if argv is None else list(argv)
    args = build_parser(given).parse_args(given)
    distributed = os.environ.get("WORLD_SIZE", "1") not in ("", "1")  # as set by torchrun
    rank = os.environ.get("RANK", "0")
    silent = distributed and rank.isdecimal() and int(rank) > 0  # only rank 0 prints
    console, errors = _consoles(silent=silent)
    handler, logger = _Lines(errors), logging.getLogger("tldet")
    logger.setLevel(logging.WARNING if silent else logging.INFO)
    logger.addHandler(handler)
    try:
        if distributed and args.command not in _DISTRIBUTED:
            raise ConfigError(f"runs in a single process; torchrun supports {', '.join(_DISTRIBUTED)}")
        _refuse_empty(args)
        _require_current_folder()
        _import_plugins(args.imports)
        code: int = args.run(args, console) or 0
    except (TldetError, MemoryError, RuntimeError) as error:
        message = _message(error)
        if not silent or args.command in _INDEPENDENT or not isinstance(error, TldetError):
            errors.print(f"tldet {args.command}: error: {message}", style="red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt as stop:
        errors.print(str(stop) or "interrupted", markup=False, highlight=False)
        return 130
    finally:
        logger.removeHandler(handler)
    return code


def _consoles(*, silent: bool) -> tuple[Console, Console]:
    """Create the consoles of standard output and standard error."""
    from rich.console import Console

    plain: dict[str, Any] = {"soft_wrap": True, "markup": False, "highlight": False}  # paths may contain brackets
    consoles = (
        Console(file=output_stream(), quiet=silent, **plain),
        Console(file=error_stream(), stderr=True, **plain),
    )
    for console in consoles:
        if console.width < NARROWEST:
            console.width = NARROWEST
    return consoles


def _message(error: Exception) -> str:
    """Return the message of bad input or lack of memory; raise any other error again."""
    if isinstance(error, TldetError):
        return str(error)
    from tldet.system.out_of_memory import is_out_of_memory

    if not is_out_of_memory(error):
        raise error
    details = (str(error).splitlines() or ["no details"])[0]
    return f"out of memory ({details}); use smaller images or batches"


def _require_current_folder() -> None:
    """Check that the current folder exists; torch fails without it, not only relative paths.

    Raises:
        ConfigError: the folder has been removed.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current folder has been removed; change to another one") from None


def _import_plugins(names: Sequence[str]) -> None:
    """Import external packages, without loading the registries if there are none."""
    if names:
        from tldet.plugins import FOLDERS, import_plugins

        import_plugins(names)
        sys.path.extend(FOLDERS)  # modules next to them may be imported later


def _refuse_empty(args: Namespace) -> None:
    """Reject empty arguments, which would mean the current folder or be ignored.

    Raises:
        ConfigError: an argument is empty, for example an unset shell variable.
    """
    for name, value in vars(args).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise ConfigError(f"argument {name.replace('_', '-')} is empty; use a value or leave it out")
