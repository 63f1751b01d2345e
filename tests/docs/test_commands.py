"""Every command in the documentation is one that the real parser accepts, with config keys that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.quality.request import QualityRequest
from tests.docs.pages import PAGES, ROOT, Block, blocks, known_keys, name_of, spans
from tldet.cli.main import build_parser, main
from tldet.cli.parser import Parser
from tldet.runtime.command import command_parser
from tldet.workflows.options import flag
from tldet.workflows.requests import options

KEY = re.compile(r"^(?:model|data|optimizer|schedule|training|evaluation|freeze|l2_sp|class_match|distill)\.[\w.]+")
FILES = re.compile(r"\.(?:py|pt|md|json|jsonl|csv|yaml)$|\.\.")  # data.yaml is no key


@pytest.fixture(scope="module")
def parser() -> Parser:
    return build_parser()


@pytest.fixture(scope="module")
def config_keys() -> set[str]:
    return known_keys()


def command_in(line: str) -> list[str] | None:
    """The arguments of ``tldet`` in a shell line; None if it runs something else."""
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    return words[words.index("tldet") + 1 :] if "tldet" in words and words[0] in ("tldet", "torchrun") else None


def commands(block: Block) -> list[list[str]]:
    lines = block.text.replace("\\\n", " ").splitlines()
    found = [command_in(line) for line in lines if line.startswith(("tldet ", "torchrun "))]
    return [one for one in found if one is not None]


@pytest.mark.parametrize("block", [one for one in blocks("bash") if commands(one)], ids=str)
def test_commands_parse(block: Block, parser: Parser, config_keys: set[str]) -> None:
    for command in commands(block):
        if command == ["--version"]:
            continue
        args = vars(parser.parse_args(command))
        for option in [*(args.get("cfg_options") or ()), *(args.get("shot_options") or ())]:
            if not option.startswith("$"):
                key = re.sub(r"\.\d+\b", ".N", option.partition("=")[0])
                assert key in config_keys, f"{block}: --cfg-options {option}"


def test_commands_of_tldet_runtime_parse() -> None:
    lines = [line for block in blocks("bash") for line in block.text.splitlines() if line.startswith("tldet-runtime ")]
    for line in lines:
        command_parser().parse_args(shlex.split(line, comments=True)[1:])
    assert len(lines) > 2


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_inline_commands_name_options_that_exist(page: Path, parser: Parser) -> None:
    leaves = {tuple(leaf.prog.split()[1:]): leaf for leaf in parser.leaves()}
    for span in spans(page):
        words = span.split()
        if "tldet" not in words or words[0] not in ("tldet", "torchrun") or len(words) == 1:
            continue
        words = words[words.index("tldet") + 1 :]
        if words[0].startswith("-") or not words[0].islower():
            continue  # tldet --version, tldet COMMAND
        found = [leaf for name, leaf in leaves.items() if name[: len(words)] == tuple(words[: len(name)])]
        assert found, f"{name_of(page)}: {span}"
        for option in (word for word in words if word.startswith("--")):
            assert any(option in leaf._option_string_actions for leaf in found), f"{name_of(page)}: {span}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_text_exist(page: Path, parser: Parser) -> None:
    known = {option for leaf in (*parser.leaves(), command_parser()) for option in leaf._option_string_actions}
    known |= {"--standalone", "--nproc-per-node", "--no-python", "--strict"}  # of torchrun and mypy
    known |= {flag(name) for name in options(QualityRequest)}  # of python -m benchmarks quality
    for span in spans(page):
        if span.startswith("--"):
            option = span.split()[0].partition("=")[0]
            assert option in known, f"{name_of(page)}: {span}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_config_keys_in_text_exist(page: Path, config_keys: set[str]) -> None:
    for span in spans(page):
        found = KEY.match(span)
        if found and not FILES.search(span.split("=")[0]):
            key = re.sub(r"\.(?:\d+|SPLIT)\b", ".N", found[0]).replace("data.N", "data.train").rstrip(".")
            assert key in config_keys, f"{name_of(page)}: {span}"


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_errors_are_those_that_are_shown(
    block: Block, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    prompt, *shown = block.text.splitlines()
    assert prompt.startswith("$ tldet ")
    try:
        if {"--data", "--train"} & set(shlex.split(prompt)):  # without these data, only the parser can object
            build_parser().parse_args(shlex.split(prompt)[2:])
            return
        code = main(shlex.split(prompt)[2:])
    except SystemExit as stop:  # an error of the parser
        code = int(stop.code or 0)
    assert code == 2
    expected = " ".join(" ".join(shown).split()).removesuffix("(see ...)")
    assert " ".join(capfd.readouterr().err.split()).startswith(expected)


def test_the_checks_can_fail(parser: Parser, config_keys: set[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["finetune", "--out", "a", "--weight-decay", "0.1"])
    assert "optimizer.learning_rate" not in config_keys
    assert {"optimizer.lr", "data.train.transforms.N.p", "model.head.roi.cosine", "model.head"} <= config_keys
    assert command_in("tldet test best.pt  # comment") == ["test", "best.pt"]
    assert command_in("tensorboard --logdir runs") is None
