"""Callbacks and mmengine hooks: called at the points that exist, rejected by name at others."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.hooks import EMAHook, Hook, IterTimerHook

from tldet.engine.callbacks import POINTS, Callback, check_callback
from tldet.errors import ConfigError


def kind(base: type[Any], **methods: Any) -> Any:
    return type("Own", (base,), methods)()


def method(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize("base", [Callback, Hook])
@pytest.mark.parametrize("point", POINTS)
def test_every_point_is_accepted(base: type[Any], point: str) -> None:
    check_callback(kind(base, **{point: method}))
    with pytest.raises(ConfigError, match=f"did you mean {point}\\?"):
        check_callback(kind(base, **{f"{point}s": method}))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("after_train_iters", "did you mean after_train_iter?"),
        ("ater_train_iter", "did you mean after_train_iter?"),
        ("afterTrainIter", "did you mean after_train_iter?"),
        ("on_train_end", "is not a hook point; hook points are"),
        ("before_everything", "is not a hook point"),
        ("before_val_iter", "tldet's trainer has no such hook point"),
        ("after_test_epoch", "tldet's trainer has no such hook point"),
        ("_after_iter", "tldet's trainer has no such hook point"),
    ],
)
@pytest.mark.parametrize("base", [Callback, Hook])
def test_others_are_rejected_by_name(base: type[Any], name: str, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_callback(kind(base, **{name: method}))
    assert f"callback Own.{name}: " in str(raised.value)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["save_checkpoint", "load_checkpoint", "one_shot", "write", "val_epoch", "_helper"])
def test_other_methods_are_free(name: str) -> None:
    check_callback(kind(Callback, **{name: method}))
    with pytest.raises(ConfigError, match=f"on_{name}: "):
        check_callback(kind(Callback, **{f"on_{name}": method}))


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="must take the arguments runner, batch_idx, data_batch, outputs"):
        check_callback(kind(Callback, after_train_iter=lambda self, runner: None))


@pytest.mark.parametrize("hook", [EMAHook, IterTimerHook])
def test_hooks_of_mmengine_itself(hook: type[Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{hook.__name__}\.\w+: tldet's trainer has no such hook point"):
        check_callback(hook())


def test_something_else() -> None:
    with pytest.raises(ConfigError, match="must be a tldet Callback or an mmengine Hook"):
        check_callback(object())
