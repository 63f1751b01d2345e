"""Plan of a prediction run: inputs, outputs, and results of an earlier run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tldet import __version__
from tldet.errors import ConfigError, DataError
from tldet.inference.predictor import Predictor
from tldet.inference.runtimes.exported import EXPORTED_SUFFIXES
from tldet.inference.sources import InputSource
from tldet.system.inputs import file_hash, is_file
from tldet.text import counted
from tldet.workflows.options import flag
from tldet.workflows.predict.formats import require_parquet
from tldet.workflows.predict.jsonl import JSONL_VERSION, JsonlWriter, Scan
from tldet.workflows.predict.numbering import Numbering
from tldet.workflows.predict.outputs import OutputPaths
from tldet.workflows.predict.request import PredictRequest
from tldet.workflows.predict.shards import Shard, shard_of

log = logging.getLogger(__name__)
_MERGED = ("json", "coco", "csv", "parquet")  # outputs of all shards together
_OPTIONS = ("tiles", "overlap", "nms_per_class", "max_pixels")  # that change the results


@dataclass(frozen=True)
class PredictPlan:
    """Plan of a run.

    Attributes:
        request: the arguments.
        paths: the outputs.
        sources: all inputs, including those of other shards.
        todo: inputs to predict on.
        shard: part of the inputs that this run processes.
        numbering: ids of a dataset, or None.
        writer: writer of the JSON Lines file, or None.
        resumed: number of inputs that an earlier run completed.
    """

    request: PredictRequest
    paths: OutputPaths
    sources: Sequence[InputSource]
    todo: Sequence[InputSource]
    shard: Shard
    numbering: Numbering | None = None
    writer: JsonlWriter | None = None
    resumed: int = 0

    @property
    def device(self) -> str:
        """Device of the run; with several processes per machine, each takes the next GPU for a checkpoint."""
        in_torch = Path(self.request.checkpoint).suffix not in EXPORTED_SUFFIXES
        if self.request.device == "auto" and self.shard.origin and in_torch and torch.cuda.is_available():
            return f"cuda:{self.shard.local % torch.cuda.device_count()}"
        return self.request.device

    @property
    def precision(self) -> str:
        """Precision of the run; if a run is resumed, ``auto`` means the precision of that run."""
        earlier = self.writer.found.run.get("precision") if self.writer else None
        fixed = Path(self.request.checkpoint).suffix in EXPORTED_SUFFIXES  # in an exported detector
        return str(earlier) if earlier and self.request.precision == "auto" and not fixed else self.request.precision

    def begin(self, predictor: Predictor, categories: Mapping[int, str]) -> None:
        """Start writing the JSON Lines file with the settings of the run.

        Raises:
            DataError: the file was written with other settings.
        """
        assert self.writer is not None
        run = self._settings(predictor, categories)
        earlier = self.writer.found.run
        for name in run if earlier else ():
            if name not in ("tldet", "inputs") and run[name] != earlier.get(name):
                raise DataError(
                    f"{self.writer.path}: cannot be resumed because the settings differ: "
                    f"{_difference(name, run[name], earlier.get(name))}; use the same settings, or another --jsonl"
                )
        self.writer.begin(run)

    def _settings(self, predictor: Predictor, categories: Mapping[int, str]) -> dict[str, Any]:
        """Return the settings that results depend on, as plain JSON values."""
        return {
            "version": JSONL_VERSION,
            "tldet": __version__,
            "checkpoint_sha256": file_hash(Path(self.request.checkpoint)),
            "precision": predictor.precision.name,
            "score": predictor.scores.describe() if self.request.score is None else f"{self.request.score:g}",
            **{name: getattr(self.request, name) for name in _OPTIONS},
            "annotations": None if self.request.annotations is None else str(self.request.annotations),
            "categories": [{"id": key, "name": name} for key, name in categories.items()],
            "shard": str(self.shard),
            "inputs": len({source.path for source in self.shard.of(self.sources)}),
        }


def _difference(name: str, now: object, before: object) -> str:
    """Describe a setting that differs from the file, such as ``score 0.7 (file: 0.3)``."""
    return "other classes" if name == "categories" else f"{flag(name).removeprefix('--')} {now} (file: {before})"


def planned(request: PredictRequest, sources: Sequence[InputSource]) -> PredictPlan:
    """Plan a run: check its outputs, create their folders, read the annotations and the results to resume.

    Raises:
        TldetError: the options contradict each other, or an output exists already or cannot be written.
    """
    shard, paths = shard_of(request.shard), OutputPaths.of(request)
    _refuse(request, paths, shard)
    require_parquet(paths.parquet)
    paths = replace(paths, jsonl=shard.path(paths.jsonl) if paths.jsonl else None)
    own = shard.of(sources)
    annotations = None if request.annotations is None else Path(request.annotations)
    read = [Path(request.checkpoint), *([annotations] if annotations else [])]
    overwrite = request.overwrite or request.resume
    paths.check(own, read, overwrite=overwrite, shared=shard.count > 1)
    numbering = Numbering(annotations, sources) if annotations else None
    paths.make_folders()
    if shard.count > 1:
        log.info("shard %s%s: %d of %s", shard, f" ({shard.origin})" if shard.origin else "", len(own), len(sources))
    plan = PredictPlan(request, paths, sources, own, shard, numbering)
    return _resumed(plan, paths.jsonl) if paths.jsonl else plan


def _refuse(request: PredictRequest, paths: OutputPaths, shard: Shard) -> None:
    """Reject outputs that a shard cannot write, and ``--resume`` without ``--jsonl``."""
    if request.resume and not paths.jsonl:
        raise ConfigError("--resume needs --jsonl FILE, the file that is resumed")
    merged = [name for name in _MERGED if getattr(paths, name)]
    if shard.count > 1 and merged:
        source = f" (from {shard.origin})" if shard.origin else ""
        raise ConfigError(
            f"--{merged[0]}: shard {shard}{source} contains only part of the results; use --jsonl, and merge the "
            "shards with tldet merge-results (--shard 1/1 predicts on all inputs)"
        )


def _resumed(plan: PredictPlan, path: Path) -> PredictPlan:
    """Open the JSON Lines file, and skip the inputs that it contains."""
    existing = is_file(path)
    writer = JsonlWriter(path, resume=plan.request.resume)
    found: Scan = writer.found
    if found.torn:
        log.warning("%s: incomplete last line removed (%s)", path, counted(found.torn, "byte"))
    todo = [source for source in plan.todo if source.path.as_posix() not in found.done]
    done = len(plan.todo) - len(todo)
    if plan.request.resume:
        done_before = f"{counted(done, 'input')} done, {len(todo):,} remaining" if existing else "no results yet"
        log.info("%s: %s", path, done_before)
    return replace(plan, todo=todo, writer=writer, resumed=done)
