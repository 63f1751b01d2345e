"""Suggestions for unknown options: synonyms, similar names, and config keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tldet.workflows.options import CFG_OPTIONS

NEAR, NEAR_KEY = 0.6, 0.75  # smallest similarity of a suggestion, 0 to 1
# Names of an option in tldet and in other toolkits; a command has at most one or two of each line.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("out", "work-dir", "output", "output-dir", "out-dir", "save-dir", "outdir", "project", "results-dir"),
    ("batch-size", "batch", "bs", "batchsize", "samples-per-gpu", "ims-per-batch", "train-batch-size"),
    ("lr", "learning-rate", "lr0", "base-lr"),
    ("workers", "num-workers", "workers-per-gpu", "num-data-workers", "j"),
    ("device", "gpu", "gpus", "gpu-id", "gpu-ids", "cuda"),
    ("precision", "amp", "fp16", "bf16", "fp32", "half", "mixed-precision"),
    ("epochs", "max-epochs", "num-epochs", "n-epochs"),
    ("steps", "max-steps", "iters", "max-iters", "iterations", "num-steps"),
    ("minutes", "time", "max-minutes", "budget"),
    ("score", "conf", "conf-thres", "confidence", "score-thr", "score-threshold", "threshold"),
    ("weights", "init-from", "pretrained", "load-from", "checkpoint", "ckpt"),
    ("model", "arch", "recipe"),
    ("resume", "auto-resume", "resume-from", "continue"),
    ("data", "dataset", "data-dir", "data-path", "data-root", "gt", "annotations"),
    ("train", "train-json", "train-annotations"),
    ("val", "val-json", "val-annotations", "validation"),
    ("images", "image-dir", "images-dir", "img-dir"),
    ("cfg-options", "opts", "options", "set"),
    ("json", "save-json", "json-path"),
)


def near(name: str, names: Collection[str]) -> str:
    """Return a suggestion of the most similar name, or the list of all names."""
    found = _closest(name, names, NEAR)
    return f"did you mean {found!r}?" if found else f"commands: {', '.join(names)}"


def suggestion(option: str, value: str | None, known: Collection[str], hints: Mapping[str, str]) -> str:
    """Return the suggestion for an unknown option; empty without a similar name.

    Args:
        option: the unknown option.
        value: its value on the command line, if any.
        known: options of the command.
        hints: messages for single options.
    """
    plain = _plain(option)
    if plain in hints:
        return f": {hints[plain]}"
    flags = {_plain(flag): flag for flag in known if flag.startswith("--")}
    if flag := flags.get(plain) or _same(plain, flags):
        return f"; did you mean {flag}?"
    paths = config_keys() if CFG_OPTIONS in known else []
    leaves = {path.rpartition(".")[2].replace("_", "-"): path for path in reversed(paths)}
    if plain in leaves:
        return _as_key(leaves[plain], value)
    if near_flag := _closest(plain, flags, NEAR):
        return f"; did you mean {flags[near_flag]}?"
    near_key = _closest(plain, leaves, NEAR_KEY)
    return _as_key(leaves[near_key], value) if near_key else ""


def _closest(name: str, names: Collection[str], cutoff: float) -> str | None:
    """Return the most similar of ``names``; None if none is similar enough."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def _plain(option: str) -> str:
    return option.lstrip("-").replace("_", "-").lower()


def _same(plain: str, flags: Mapping[str, str]) -> str | None:
    """Return the name in this command of an option with another name in other toolkits."""
    group: Sequence[str] = next((names for names in SYNONYMS if plain in names), ())
    return next((flags[name] for name in group if name in flags), None)


def _as_key(path: str, value: str | None) -> str:
    return f"; to set the config key, use {CFG_OPTIONS} {path}={'VALUE' if value is None else value}"


def config_keys() -> list[str]:
    """Return the dotted keys of training configs, without keys of list items."""
    from tldet.workflows.training.schema import PRETRAIN_SCHEMA, SCHEMA

    schema = {**SCHEMA, **PRETRAIN_SCHEMA}
    found = [key for path, part in schema.items() if "*" not in path for key in _keys_of(path, part.target)]
    return list(dict.fromkeys(found))


def _keys_of(path: str, target: Any) -> Iterator[str]:
    from tldet.config.check import dataclass_in, parameters

    targets = [target]
    if hasattr(target, "module_dict"):
        target.import_from_location()
        targets = list(target.module_dict.values())  # of external code, only what is imported already
    for one in targets:
        for name, (hint, _) in parameters(one).items():
            yield f"{path}.{name}"
            if (nested := dataclass_in(hint)) is not None:
                yield from _keys_of(f"{path}.{name}", nested)
