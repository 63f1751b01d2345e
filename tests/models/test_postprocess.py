"""The best pairs of a level against a search among all of them."""

from __future__ import annotations

import pytest
import torch

from tldet.models.postprocess import best_pairs


@pytest.mark.parametrize(
    ("references", "classes", "count"), [(300, 7, 50), (300, 1, 50), (20, 7, 50), (3, 4, 50), (0, 7, 50)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_best_pairs_are_those_of_all(references: int, classes: int, count: int, ties: bool) -> None:
    ranks = torch.randn(2, references, classes, generator=torch.Generator().manual_seed(0))
    ranks = ranks.round() if ties else ranks
    best, rows, labels = best_pairs(ranks, count)
    flat = torch.topk(ranks.flatten(1), min(count, references * classes), dim=1)
    assert torch.equal(best, flat.values)
    for picture in range(2):
        assert torch.equal(ranks[picture, rows[picture], labels[picture]], best[picture])
        assert len(set(zip(rows[picture].tolist(), labels[picture].tolist(), strict=True))) == best.shape[1]
    if not ties:
        assert torch.equal(rows * classes + labels, flat.indices)
