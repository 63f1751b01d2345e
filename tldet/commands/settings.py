"""Options of training commands that set keys of the config."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tldet.workflows.options import config_options, options, refuse_conflicts
from tldet.workflows.request import ExtendRequest, FinetuneRequest, PretrainRequest, TrainRequest
from tldet.workflows.run_options import SettingsOptions

if TYPE_CHECKING:
    from tldet.workflows.study.data import Wishes

# Options that stand for keys of the config: --batch-size 8 is --cfg-options data.loader.batch_size=8.
SETTINGS: Mapping[str, str] = {name: one.sets[0] for name, one in options(SettingsOptions).items() if one.setting}


def options_of(args: Namespace) -> list[str]:
    """Return the config options ``a.b=c`` of a command: those of :data:`SETTINGS`, then ``--cfg-options``.

    Raises:
        ConfigError: a key is set twice, by options of both kinds or by ``--cfg-options`` alone.
    """
    requests = (TrainRequest, FinetuneRequest, PretrainRequest, ExtendRequest)
    table = {name: one for request in requests for name, one in options(request).items()}
    refuse_conflicts(table, vars(args))
    return config_options(table, vars(args))


def wishes_of(args: Namespace) -> Wishes:
    """Return the settings that all runs of a study or few-shot experiment share."""
    from pathlib import Path

    from tldet.workflows.study.data import Wishes

    given: dict[str, Any] = {"model": args.model} if args.model is not None else {}
    return Wishes(
        args.data,
        Path(args.out),
        train=args.train,
        val=args.val,
        images=args.images,
        on_bad_image=args.on_bad_image,
        epochs=args.epochs,
        minutes=args.minutes,
        steps=args.steps,
        seeds=args.seeds,
        cfg_options=options_of(args),
        **given,
    )
