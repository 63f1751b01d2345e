"""The command reference: every command and option, read from the argument parsers."""

from __future__ import annotations

import argparse
import re

from docs.generate.texts import sentence, table
from tldet.cli.main import build_parser
from tldet.runtime.command import command_parser

INTRO = """# Commands

`tldet COMMAND --help` prints the same texts. Options cannot be abbreviated. A default of *-* means that nothing is set:
the description or the linked how-to page states the effect.

Exit codes: 0 for success, 1 if a check fails (`tldet check --fail-on`, verification of `tldet export`), 2 for an error
that you can correct (one line, no traceback), 130 after Ctrl-C.
"""
# "(default: 0.3)" moves into its own column; "stop (error, default), or skip" stays.
_STATED = re.compile(r"\s*(?P<mark>[(;]) ?default: (?P<default>(?:[^()]|\([^()]*\))*)\)|\((?P<aside>\w+), default\)")


def page() -> str:
    """Return the page."""
    return "\n".join([INTRO, *(_command(one) for one in (*build_parser().leaves(), command_parser()))])


def _command(parser: argparse.ArgumentParser) -> str:
    lines = [f"## {parser.prog}", "", f"{sentence(parser.description or '')}.", ""]
    lines += ["```console", _usage(parser), "```", ""]
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if not isinstance(one, argparse._HelpAction)]
        if actions:
            title = {"positional arguments": "Arguments", "options": "Options"}.get(
                group.title or "", group.title or ""
            )
            lines += [f"**{sentence(title)}**", ""]
            lines += [table(["option", "default", "description"], [_row(one) for one in actions])]
    return "\n".join(lines)


def _usage(parser: argparse.ArgumentParser) -> str:
    """Return the usage with required arguments only."""
    named = [one for one in parser._actions if one.option_strings and one.required]
    words = [parser.prog, *(argument(one) for one in parser._actions if not one.option_strings)]
    return " ".join([*words, *(argument(one) for one in named), "[options]"])


def argument(action: argparse.Action) -> str:
    """Return an argument with its values, as in a usage line."""
    default = action.dest.upper() if action.option_strings else action.dest
    values = argparse.HelpFormatter("")._format_args(action, default)
    values = re.sub(r"^(\S+) \[\1 \.\.\.\]$", r"\1 ...", values)
    return f"{'/'.join(action.option_strings)} {values}".strip()


def _row(action: argparse.Action) -> tuple[str, str, str]:
    text = argparse.HelpFormatter("")._expand_help(action) if action.help else ""
    found = _STATED.search(text)
    if found is None or action.nargs == 0:
        return f"`{argument(action)}`", _default(action), text
    kept = {"(": "", ";": ")", None: found[0]}[found["mark"]]
    rest = text[: found.start()] + kept + text[found.end() :]
    return f"`{argument(action)}`", found["aside"] or found["default"], rest


def _default(action: argparse.Action) -> str:
    if action.required and action.nargs != "?":
        return "required"
    if action.nargs == 0:
        return "off"
    if action.default in (None, [], ()):
        return "-"
    values = action.default if isinstance(action.default, (list, tuple)) else [action.default]
    return f"`{' '.join(str(one) for one in values)}`"
