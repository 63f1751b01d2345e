"""Options are declared once: command line, Python arguments, record of the run and config keys follow from them."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

import pytest

from tldet.cli.arguments import add_options, arguments_of
from tldet.errors import TldetError
from tldet.workflows.extend.extend import extend
from tldet.workflows.extend.request import ExtendRequest
from tldet.workflows.options import REQUIRED
from tldet.workflows.requests import Request, default_of, options
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.pretrain import pretrain
from tldet.workflows.training.request import FinetuneRequest, PretrainRequest, TrainRequest
from tldet.workflows.training.run_options import Length, LengthOptions
from tldet.workflows.training.train import train

COMMANDS: list[tuple[Any, type[Request], list[str]]] = [
    (finetune, FinetuneRequest, ["--out", "o"]),
    (train, TrainRequest, ["c"]),
    (pretrain, PretrainRequest, ["--out", "o"]),
    (extend, ExtendRequest, ["--out", "o"]),
]


def parsed(request: type[Request], *arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_options(parser, request)
    return arguments_of(parser.parse_args(arguments), request, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("function", "request_type", "needed"), COMMANDS, ids=lambda one: getattr(one, "__name__", ""))
def test_help_texts_are_the_documentation_in_python(
    function: Any, request_type: type[Request], needed: list[str]
) -> None:
    given = parsed(request_type, *needed)
    signature = inspect.signature(function)
    assert set(given) | {"callbacks"} == set(signature.parameters)
    for name in options(request_type):
        default = default_of(request_type, name)
        if default is not REQUIRED:
            assert given[name] == default or (given[name], default) == ([], ()), name
            assert signature.parameters[name].default == default
    for name, one in options(request_type).items():  # a flag such as --no-distill describes the value False
        assert any(f"    {name}: {text}." in function.__doc__ for text in (one.help, f"if False, {one.help}")), name


def test_a_command_line_and_a_call_are_the_same_request() -> None:
    line = ["--out", "o", "--data", "d", "--steps", "6", "--batch-size", "8", "--lr", "1e-4", "--gradual"]
    line += ["--freeze", "neck", "--freeze", "head.a", "--augment", "HorizontalFlip", "ColorJitter(p=0.3)"]
    made = FinetuneRequest(**parsed(FinetuneRequest, *line))
    call = FinetuneRequest(
        "d",
        out="o",
        steps=6,
        batch_size=8,
        lr=1e-4,
        gradual=0.5,
        freeze=["neck", "head.a"],
        augment=["HorizontalFlip", "ColorJitter(p=0.3)"],
        cfg_options=[],
        fold_names=[],
    )
    assert made == call
    assert made.length == Length("steps", 6)
    assert made.overrides() == ["data.loader.batch_size=8", "optimizer.lr=0.0001", "optimizer.base_batch=None"]
    record = {"data": "d", "steps": 6, "gradual": 0.5, "freeze": ("neck", "head.a"), "seed": 0}
    record |= {"model": "faster_rcnn_lite0", "augment": ("HorizontalFlip", "ColorJitter(p=0.3)")}
    assert made.record() == record


def test_flags_that_are_on_by_default_and_positions() -> None:
    made = ExtendRequest(**parsed(ExtendRequest, "c.pt", "--out", "o", "--no-distill"))
    assert made == ExtendRequest("c.pt", out="o", distill=False, fold_names=[], cfg_options=[])
    assert made.given() == {"CKPT": "c.pt", "no-distill": True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": -1}, "--steps must be an integer of at least 0, not -1"),
        ({"epochs": 1.5}, "--epochs must be an integer of at least 1, not 1.5"),
        ({"minutes": 0}, "--minutes must be a number above 0, not 0"),
        ({"minutes": float("nan")}, "--minutes must be a number above 0, not nan"),
        ({"gradual": 1.5}, "--gradual must be above 0 and at most 1, not 1.5"),
        ({"batch_size": "big"}, "--batch-size must be 'auto' or an integer of at least 1, not 'big'"),
        ({"epochs": 1, "steps": 2}, "--epochs and --steps cannot be combined"),
        ({"seed": -1}, "--seed must be at least 0, not -1"),
    ],
)
def test_values_are_checked_in_python_too(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TldetError) as caught:
        finetune(out="o", **given)
    assert str(caught.value) == message


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(TypeError, match="epoch"):
        finetune(out="o", epoch=3)


@pytest.mark.parametrize(
    ("length", "text", "section"),
    [
        (LengthOptions(epochs=12).length, "training length 12 epochs", {"epochs": 12}),
        (LengthOptions(minutes=2.5).length, "training time 2.5 min", {"minutes": 2.5}),
        (LengthOptions(steps=1).length, "training length 1 step", {"steps": 1}),
    ],
)
def test_length(length: Length, text: str, section: dict[str, float]) -> None:
    assert (str(length), length.section()) == (text, section)
    assert Length.of({"policy": "cosine", **section, "other": None}) == length
    assert LengthOptions().length is None
