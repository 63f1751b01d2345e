"""``tldet quickstart``: train and evaluate on a generated dataset, from pretrained weights and from scratch."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from tldet import checkpoint
from tldet.data.images import read_image
from tldet.data.index import AnnotationIndex
from tldet.engine.logging import LOG_NAME
from tldet.evaluation.report import CocoResult
from tldet.inference.loading import load
from tldet.inference.writer import VideoWriter
from tldet.text import counted
from tldet.visualize.curves import plot_curves
from tldet.visualize.drawing import draw, grid
from tldet.workflows.command_requests import QuickstartRequest
from tldet.workflows.predict.outputs import write_image
from tldet.workflows.predict.predict import predict
from tldet.workflows.requests import takes
from tldet.workflows.test import test
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 6  # images
NO_FLIP = ("data.train.transforms.1.p=0.0",)  # a mirrored 3 is not a digit


@takes(QuickstartRequest)
def quickstart(request: QuickstartRequest) -> None:
    """Fine-tune from ImageNet weights and train from scratch for as many steps; evaluate both, draw detections.

    Raises:
        TldetError: the data is wrong, or an output cannot be written.
    """
    folder, console = Path(request.out), request.console or _silent()
    options = NO_FLIP if request.data is None else ()
    data = _generated(Path(request.demo), console) if request.data is None else request.data
    _clear(folder)
    console.rule("fine-tuning from ImageNet weights")
    tuned = finetune(data, out=folder / "finetuned", minutes=request.minutes, cfg_options=options, console=console)
    steps = tuned.train.step
    console.rule(f"training from scratch, {counted(steps, 'step')}")
    scratch = finetune(data, out=folder / "scratch", steps=steps, scratch=True, cfg_options=options, console=console)
    console.rule("results")
    console.print(_table([_evaluated(run, console) for run in (tuned, scratch)]))
    logs = {"fine-tuned": tuned.work_dir / LOG_NAME, "from scratch": scratch.work_dir / LOG_NAME}
    console.print(f"curves: {plot_curves(logs, folder / 'curves.png')}")
    _draw(tuned, folder, console)
    if request.data is None:
        _predict_video(tuned, folder, console)


def _silent() -> Console:
    from rich.console import Console

    return Console(quiet=True)


def _generated(folder: Path, console: Console) -> Path:
    """Generate the demo dataset."""
    from tldet.data import digits

    console.print(f"generating handwritten digits on photographs in {folder}")
    return digits.generate(folder)


def _clear(folder: Path) -> None:
    """Remove the runs of an earlier quickstart."""
    for name in ("finetuned", "scratch"):
        if (folder / name / "config.py").is_file():
            shutil.rmtree(folder / name)


def _evaluated(run: Outcome, console: Console) -> CocoResult:
    """Evaluate on the test split, or on the validation split if there is no test split."""
    console.print(f"evaluating {run.trained()}")
    return test(run.trained(), json=run.work_dir / "test.json")


def _table(results: list[CocoResult]) -> object:
    from rich.table import Table

    table = Table(title=f"COCO metrics, {counted(results[0].images, 'test image')}")
    table.add_column("")
    for name in ("fine-tuned", "from scratch"):
        table.add_column(name, justify="right")
    for name in results[0].numbers():
        table.add_row(name, *(f"{r.numbers()[name]:.3f}" if r.numbers()[name] >= 0 else "-" for r in results))
    return table


def _draw(run: Outcome, folder: Path, console: Console) -> None:
    """Draw detections on the first images of the test split."""
    sections = checkpoint.load_checkpoint(run.trained())["config"]["data"]
    section = sections.get("test") or sections["val"]
    names = AnnotationIndex.load(section["annotations"]).file_names[:_SHOWN]
    images = [read_image(Path(section["images"]) / name) for name in names]
    found = load(run.trained()).predict(images)
    drawn = [draw(image, one) for image, one in zip(images, found, strict=True)]
    for name, image in zip(names, drawn, strict=True):
        write_image(folder / "images" / Path(name).with_suffix(".png").name, image)
    write_image(folder / "images.png", grid(drawn))
    console.print(f"drawn images: {folder / 'images'} and {folder / 'images.png'}")


def _predict_video(run: Outcome, folder: Path, console: Console) -> None:
    """Generate a video and draw detections on it."""
    from tldet.data import digits

    plain = folder / "digits.mp4"
    with VideoWriter(plain, Fraction(15)) as writer:
        for frame in digits.frames():
            writer.write(frame)
    predict(run.trained(), [plain], out=folder / "video", overwrite=True, console=console)
