"""Overlays: modules that take the place of others and share their parameters."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from tldet.models.surgery.overlay import Overlay, original, overlay, put_back, replace_modules


class Doubled(Overlay):
    """Multiplies the output."""

    name_prefix = "Doubled"
    factor: float

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(x) * self.factor
        return result


class Negated(Overlay):
    """Changes the sign of the output."""

    name_prefix = "Negated"

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = -super().forward(x)
        return result


def model() -> nn.Sequential:
    torch.manual_seed(0)
    shared = nn.Linear(2, 2)
    return nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared), nn.BatchNorm1d(2).eval())


X = torch.tensor([[1.0, -2.0]])


def test_an_overlay_shares_everything_with_its_module() -> None:
    plain = nn.Linear(2, 2)
    plain.register_forward_hook(lambda *_: None)
    doubled = overlay(plain, Doubled, factor=2.0)
    assert type(plain) is nn.Linear
    assert isinstance(doubled, (Doubled, nn.Linear))
    assert type(doubled).__name__ == "DoubledLinear"
    assert type(doubled) is type(overlay(nn.Linear(3, 3), Doubled, factor=1.0))
    assert doubled.weight is plain.weight
    assert doubled._forward_hooks is plain._forward_hooks
    assert torch.equal(doubled(X), 2 * plain(X))
    doubled.double()
    assert plain.weight.dtype == torch.float64


def test_the_original_comes_back() -> None:
    plain = nn.Linear(2, 2)
    both = overlay(overlay(plain, Doubled, factor=2.0), Negated)
    assert torch.equal(both(X), -2 * plain(X))
    doubled = original(both)
    assert torch.equal(doubled(X), 2 * plain(X))
    again = original(doubled)
    assert type(again) is nn.Linear
    assert not hasattr(again, "factor")
    assert again.weight is plain.weight


def test_modules_are_replaced_wherever_they_are_registered() -> None:
    whole = model()
    keys, linear = list(whole.state_dict()), whole[0]
    doubled = overlay(linear, Doubled, factor=2.0)
    replaced = replace_modules(whole, {linear: doubled, whole[2]: overlay(whole[2], Negated)})
    assert whole[0] is whole[1][1] is doubled
    assert list(whole.state_dict()) == keys
    put_back(replaced)
    assert whole[0] is whole[1][1] is linear
    assert type(whole[2]) is nn.BatchNorm1d


def test_a_compiled_forward_pass_is_not_shared() -> None:
    plain = nn.Linear(2, 2)
    plain._compiled_call_impl = lambda x: x  # type: ignore[assignment]
    assert not torch.equal(overlay(plain, Doubled, factor=2.0)(X), X)


@pytest.mark.parametrize("way", ["copy", "pickle", "torch"])
def test_overlays_of_overlays_are_copied_and_pickled(way: str) -> None:
    whole = model()
    doubled = overlay(overlay(whole[0], Doubled, factor=3.0), Negated)
    replace_modules(whole, {whole[0]: doubled})
    if way == "copy":
        other = copy.deepcopy(whole)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(whole))
    else:
        file = io.BytesIO()
        torch.save(whole, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert type(other[0]) is type(doubled)
    assert other[0] is other[1][1]
    assert other[0].factor == 3.0
    assert other[0].weight is not doubled.weight
    assert torch.equal(other(X), whole(X))
    other[0].weight.data.zero_()
    assert doubled.weight.any()
