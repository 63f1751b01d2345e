"""``make quickstart``: the whole road on generated data, beside the same steps from scratch."""

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
from tldet.inference.outputs import write_image
from tldet.inference.predictor import load
from tldet.inference.run import predict
from tldet.inference.writer import VideoWriter
from tldet.visualize.drawing import draw, grid, plot_curves
from tldet.workflows.test import test
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.train import Outcome

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 6  # drawn images
NO_MIRROR = ("data.train.transforms.1.p=0.0",)  # a mirrored 3 is no digit


def quickstart(
    data: str | Path | None, *, out: str | Path, minutes: float, console: Console, demo: str | Path = "data/digits"
) -> None:
    """Fine-tune from ImageNet weights and from scratch with the same number of steps, measure both, draw.

    Args:
        data: a folder of one's own; None generates digits in ``demo``.
        out: the runs, images, curves and the video go there; an earlier quickstart there is replaced.
        minutes: training time of the first run; the second takes as many steps.
        console: shows all of it.
        demo: where the generated data go.
    """
    folder, options = Path(out), () if data is not None else NO_MIRROR
    mine = data is not None
    if data is None:
        from tldet.data import digits

        console.print(f"generating handwritten digits on photographs in {demo}")
        data = digits.generate(Path(demo))
    _clear(folder)
    console.rule("fine-tuning from ImageNet weights")
    tuned = finetune(data, out=folder / "finetuned", minutes=minutes, cfg_options=options, console=console)
    console.rule(f"the same {tuned.train.step} steps from scratch")
    plain = finetune(
        data, out=folder / "scratch", steps=tuned.train.step, scratch=True, cfg_options=options, console=console
    )
    console.rule("results")
    numbers = [_measure(run, console) for run in (tuned, plain)]
    console.print(_beside(numbers))
    logs = {"fine-tuned": tuned.work_dir / LOG_NAME, "from scratch": plain.work_dir / LOG_NAME}
    console.print(f"curves: {plot_curves(logs, folder / 'curves.png')}")
    _draw(tuned, folder, console)
    if not mine:
        _demo_video(tuned, folder, console)


def _clear(folder: Path) -> None:
    """Remove an earlier quickstart's runs, and nothing else."""
    for name in ("finetuned", "scratch"):
        if (folder / name / "config.py").is_file():
            shutil.rmtree(folder / name)


def _measure(run: Outcome, console: Console) -> CocoResult:
    """On the test split where there is one, else on the validation split."""
    console.print(f"measuring {run.trained()}")
    return test(run.trained(), json_path=run.work_dir / "test.json")


def _beside(results: list[CocoResult]) -> object:
    from rich.table import Table

    table = Table(title=f"COCO, {results[0].images} test images")
    table.add_column("")
    for name in ("fine-tuned", "from scratch"):
        table.add_column(name, justify="right")
    for name in results[0].numbers():
        table.add_row(name, *(f"{r.numbers()[name]:.3f}" if r.numbers()[name] >= 0 else "-" for r in results))
    return table


def _draw(run: Outcome, folder: Path, console: Console) -> None:
    """The first images of the test split with what was found on them."""
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


def _demo_video(run: Outcome, folder: Path, console: Console) -> None:
    from tldet.data import digits

    plain = folder / "digits.mp4"
    with VideoWriter(plain, Fraction(15)) as writer:
        for frame in digits.frames():
            writer.write(frame)
    predict(run.trained(), [plain], out=folder / "video", overwrite=True, console=console)
