"""The ``tldet`` command: sub-commands that parse arguments and call one function each.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once. A :class:`TldetError` becomes one
line and exit code 2; any other exception is a programming error and keeps its traceback.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tldet.errors import TldetError

if TYPE_CHECKING:
    from rich.console import Console

Arguments = argparse.Namespace


@dataclass(frozen=True)
class Command:
    """One sub-command: its name, its line in ``--help``, its arguments, and what it runs."""

    name: str
    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Arguments, Console], None]


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="config file, or a name such as faster_rcnn/faster_rcnn_r50_fpn_1x_coco")
    parser.add_argument("--work-dir", metavar="D", help="where checkpoints and the log go (default: runs/CONFIG)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from the newest readable checkpoint in --work-dir")
    start.add_argument("--init-from", metavar="F", help="start from the weights of this tldet checkpoint")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="a.b=c", help="override config keys")


def _train(args: Arguments, console: Console) -> None:
    from tldet.workflows.train import train

    train(
        args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        init_from=args.init_from,
        options=args.cfg_options,
        console=console,
    )


def _finetune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", help="folder with pictures and COCO JSON")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the run goes")
    parser.add_argument("--model", metavar="NAME", help="recipe (default: faster_rcnn_lite0)")
    parser.add_argument("--backbone", metavar="B", help="another backbone, see tldet models")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=_positive_int, metavar="N", help="train for N epochs")
    length.add_argument("--minutes", type=_positive_float, metavar="M", help="budget of training time")
    length.add_argument("--steps", type=_positive_int, metavar="N", help="train for N steps")
    parser.add_argument("--seed", type=int, metavar="S", help="seed (default: 0)")
    parser.add_argument("--scratch", action="store_true", help="start from random weights instead of pretrained ones")
    parser.add_argument("--train", metavar="JSON", help="annotations to train on")
    parser.add_argument("--val", metavar="JSON", help="annotations to measure on")
    parser.add_argument("--images", metavar="DIR", help="picture folder of --train and --val")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--weights",
        metavar="W",
        help="start from a whole detector: 'coco' (the recipe's published COCO weights), or the file of one of tldet, "
        "MMDetection or torchvision, rows of classes carried by name; or from the file of a backbone's weights "
        "(default: the recipe's ImageNet backbone)",
    )
    start.add_argument("--resume", action="store_true", help="go on with the run in --out and its config.py")
    start.add_argument("--init-from", metavar="F", help="start from the weights of this tldet checkpoint")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="a.b=c", help="override config keys")


def _finetune(args: Arguments, console: Console) -> None:
    from tldet.workflows.finetune import finetune

    finetune(
        args.data,
        out=args.out,
        model=args.model,
        backbone=args.backbone,
        epochs=args.epochs,
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        scratch=args.scratch,
        weights=args.weights,
        train_json=args.train,
        val_json=args.val,
        images=args.images,
        resume=args.resume,
        init_from=args.init_from,
        options=args.cfg_options,
        console=console,
    )


def _pretrain_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", metavar="DIR", help="folder with train/CLASS/*.jpg and, if there is one, val/CLASS")
    data.add_argument("--demo", action="store_true", help="generate data/digit_crops and train on it")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the run and backbone.safetensors go")
    parser.add_argument("--backbone", metavar="B", help="see tldet models (default: efficientnet_lite0)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=_positive_int, metavar="N", help="train for N epochs")
    length.add_argument("--minutes", type=_positive_float, metavar="M", help="budget of training time")
    length.add_argument("--steps", type=_positive_int, metavar="N", help="train for N steps")
    parser.add_argument("--seed", type=int, metavar="S", help="seed (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out and its config.py")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="a.b=c", help="override config keys")


def _pretrain(args: Arguments, console: Console) -> None:
    from tldet.workflows.pretrain import pretrain

    pretrain(
        args.data,
        out=args.out,
        demo=args.demo,
        backbone=args.backbone,
        epochs=args.epochs,
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        resume=args.resume,
        options=args.cfg_options,
        console=console,
    )


def _test_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="a tldet checkpoint")
    parser.add_argument(
        "--data", metavar="JSON", help="COCO annotations (default: what the checkpoint was measured on)"
    )
    parser.add_argument("--images", metavar="DIR", help="picture folder of --data")
    parser.add_argument(
        "--json", metavar="F", help="write the numbers there; of a mask model the masks', and the boxes' under 'bbox'"
    )
    parser.add_argument(
        "--results", metavar="F", help="write the detections there, as COCO results JSON; of a mask model its masks"
    )
    parser.add_argument("--engine", choices=["fast", "pycocotools"], default="fast", help="evaluator")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def _test(args: Arguments, console: Console) -> None:
    from tldet.workflows.test import test

    test(
        args.checkpoint,
        data=args.data,
        images=args.images,
        json_path=args.json,
        results_path=args.results,
        engine=args.engine,
        device=args.device,
        console=console,
    )


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gt", required=True, metavar="G", help="ground truth, COCO JSON")
    parser.add_argument("--dt", required=True, metavar="D", help="detections, COCO results JSON")
    parser.add_argument("--type", choices=["bbox", "segm"], default="bbox", help="what is compared")
    parser.add_argument("--engine", choices=["fast", "pycocotools"], default="fast", help="evaluator")
    parser.add_argument("--json", metavar="F", help="write the twelve numbers there at full precision")


def _evaluate(args: Arguments, console: Console) -> None:
    from tldet.workflows.evaluate import evaluate

    result = evaluate(args.gt, args.dt, type=args.type, engine=args.engine, json_path=args.json)
    console.print(result.table())


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="a tldet checkpoint")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="pictures, folders, globs, videos, a camera's number"
    )
    parser.add_argument("--out", metavar="D", help="write drawn pictures and videos there")
    parser.add_argument("--json", metavar="F", help="write COCO results JSON there")
    parser.add_argument("--score", type=float, default=0.3, metavar="T", help="least score (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def _predict(args: Arguments, console: Console) -> None:
    from tldet.inference.run import predict

    predict(
        args.checkpoint,
        args.inputs,
        out=args.out,
        json_path=args.json,
        score=args.score,
        device=args.device,
        console=console,
    )


def _models_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detectors", action="store_true", help="the detectors only")
    parser.add_argument(
        "--backbones", nargs="?", const="", metavar="PATTERN", help="the backbones: a short list, or what fits 'swin*'"
    )
    parser.add_argument("--json", metavar="F", help="write the rows there")


def _models(args: Arguments, console: Console) -> None:
    from tldet.workflows.models import models

    models(detectors=args.detectors, backbones=args.backbones, json_path=args.json, console=console)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="an MMDetection 2.x or 3.x or a torchvision .pth file")
    parser.add_argument("--out", required=True, metavar="F", help="where the tldet checkpoint goes")
    parser.add_argument(
        "--model", metavar="NAME", help="which model it is, for example retinanet (default: told by the keys)"
    )


def _import(args: Arguments, console: Console) -> None:
    from tldet.workflows.import_checkpoint import import_checkpoint

    import_checkpoint(args.checkpoint, out=args.out, model=args.model, console=console)


def _quickstart_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", help="your own folder instead of the generated digits")
    parser.add_argument("--out", default="runs/quickstart", metavar="DIR", help="where it goes (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=_positive_float, default=2.5, metavar="M", help="training time of the first run"
    )


def _quickstart(args: Arguments, console: Console) -> None:
    from tldet.quickstart import quickstart

    quickstart(args.data, out=args.out, minutes=args.minutes, console=console)


def _benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    from tldet.benchmarks.suites import QUICK, SUITES

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    lines = "\n".join(f"  {name:8} {text}" for name, text in SUITES.items())
    parser.epilog = f"suites:\n{lines}"
    parser.add_argument("suites", nargs="+", choices=list(SUITES), metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--json", metavar="F", help="write every number there")
    parser.add_argument("--repeats", type=_positive_int, metavar="N", help="rounds of each comparison")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only this recipe; repeatable")
    parser.add_argument("--size", type=_positive_int, nargs=2, metavar=("H", "W"), help="pictures of this size")
    parser.add_argument("--batch", type=_positive_int, metavar="B", help="pictures at a time")
    parser.add_argument("--data", metavar="DIR", help="read the pictures of this COCO-format folder (suite data)")


def _benchmark(args: Arguments, console: Console) -> None:
    from tldet.benchmarks.run import benchmark

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


COMMANDS = (
    Command("train", "train from a config file", _train_arguments, _train),
    Command("finetune", "fine-tune on your own data, no config to write", _finetune_arguments, _finetune),
    Command("pretrain", "train a backbone by classification, for a detector", _pretrain_arguments, _pretrain),
    Command("test", "measure a checkpoint's COCO mAP, of masks and of boxes", _test_arguments, _test),
    Command("evaluate", "score a COCO results file", _evaluate_arguments, _evaluate),
    Command("predict", "run a detector on pictures and video", _predict_arguments, _predict),
    Command("models", "list detectors and backbones with their cost", _models_arguments, _models),
    Command("import", "turn an MMDetection or torchvision checkpoint into one of tldet", _import_arguments, _import),
    Command("benchmark", "time the parts beside what else there is", _benchmark_arguments, _benchmark),
    Command("quickstart", "the whole road on generated data", _quickstart_arguments, _quickstart),
)


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


class _Lines(logging.Handler):
    """A log record is one line, however narrow the terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), markup=False, highlight=False)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the ``tldet`` command."""
    from tldet import __version__

    parser = argparse.ArgumentParser(prog="tldet", description="Transfer learning for object detection.")
    parser.add_argument("--version", action="version", version=f"tldet {__version__}")
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        one = sub.add_parser(command.name, help=command.summary, description=command.summary)
        command.arguments(one)
        one.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    from rich.console import Console

    plain: dict[str, Any] = {
        "soft_wrap": True,
        "markup": False,
        "highlight": False,
    }  # a path with brackets in it stays itself
    console, errors = Console(**plain), Console(stderr=True, **plain)
    handler = _Lines(errors)
    logger = logging.getLogger("tldet")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        args.run(args, console)
    except TldetError as error:
        errors.print(f"tldet {args.command}: error: {error}", style="red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt as stop:
        errors.print(str(stop) or "interrupted", markup=False, highlight=False)
        return 130
    finally:
        logger.removeHandler(handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
