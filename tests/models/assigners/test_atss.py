"""Which anchors ATSS gives to which object, and which locations FCOS does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tldet.models.assigners.atss import assign_adaptively
from tldet.models.assigners.matching import BACKGROUND, IGNORED
from tldet.models.boxes import AnchorGenerator, centerness, from_distances, inside_fraction, to_distances
from tldet.models.heads.fcos import FCOSHead, FCOSSettings
from tldet.structures.target import Target

STRIDES = (8, 16, 32)


def truth(boxes: Tensor | list[list[float]], crowd: list[int] | None = None) -> Target:
    box = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    ignore = torch.zeros(len(box), dtype=torch.bool)
    ignore[crowd or []] = True
    return Target(box, torch.zeros(len(box), dtype=torch.int64), ignore)


def anchors(side: int = 128, scale: float = 4.0) -> list[Tensor]:
    grid = AnchorGenerator([[scale * s] for s in STRIDES], [1.0], STRIDES, rounding=False)
    return grid([torch.zeros(1, 1, side // s, side // s) for s in STRIDES])


def many(count: int, side: int = 128) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * (side - 60)
    return torch.cat([corner, corner + 6 + 50 * torch.rand(count, 2, generator=generator)], 1)


def by_the_paper(levels: list[Tensor], boxes: Tensor, topk: int) -> list[int]:
    """Algorithm 1 of the paper, object by object and anchor by anchor."""
    every = torch.cat(levels).double()
    taken: dict[int, tuple[float, int]] = {}
    for number, box in enumerate(boxes.double()):
        candidates: list[int] = []
        before = 0
        for level in levels:
            middle = (level[:, :2] + level[:, 2:]).double() / 2
            apart = (middle - (box[:2] + box[2:]) / 2).norm(dim=1)
            candidates += [before + int(i) for i in apart.argsort()[:topk]]
            before += len(level)
        overlaps = []
        for place in candidates:
            a = every[place]
            width, height = (torch.minimum(a[2:], box[2:]) - torch.maximum(a[:2], box[:2])).clamp(min=0)
            union = (a[2:] - a[:2]).prod() + (box[2:] - box[:2]).prod() - width * height
            overlaps.append(float(width * height / union))
        threshold = torch.tensor(overlaps).mean() + torch.tensor(overlaps).std()
        for place, overlap in zip(candidates, overlaps, strict=True):
            middle = (every[place, :2] + every[place, 2:]) / 2
            inside = bool((middle - box[:2] > 0.01).all() and (box[2:] - middle > 0.01).all())
            if overlap >= threshold and inside and overlap > taken.get(place, (-1.0, 0))[0]:
                taken[place] = (overlap, number)
    return [taken[i][1] if i in taken else BACKGROUND for i in range(len(every))]


def test_adaptive_assignment_is_the_paper_s() -> None:
    levels, boxes = anchors(), many(25)
    matched = assign_adaptively(levels, truth(boxes), topk=9, ignore_iof_thr=0.5)
    assert matched.tolist() == by_the_paper(levels, boxes, 9)
    assert len(set(matched.tolist())) > 15


def test_adaptive_assignment_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = assign_adaptively(anchors(), truth(many(40)), topk=9, ignore_iof_thr=0.5)
    monkeypatch.setattr("tldet.models.assigners.atss._CHUNK", 3 * 256)
    assert torch.equal(assign_adaptively(anchors(), truth(many(40)), topk=9, ignore_iof_thr=0.5), whole)


def test_an_anchor_that_two_objects_want_equally_takes_the_first() -> None:
    box = [20.0, 20.0, 60.0, 60.0]
    matched = assign_adaptively(anchors(), truth([box, box]), topk=9, ignore_iof_thr=0.5)
    assert set(matched.tolist()) == {BACKGROUND, 0}


def test_one_candidate_is_enough() -> None:
    matched = assign_adaptively([torch.tensor([[0.0, 0, 8, 8]])], truth([[1.0, 1, 9, 9]]), topk=9, ignore_iof_thr=0.5)
    assert matched.tolist() == [0]


@pytest.mark.parametrize("boxes", [[], [[0.0, 0, 128, 128]]])
def test_no_objects(boxes: list[list[float]]) -> None:
    """Without objects all is background; where a crowd is all there is, nothing is."""
    matched = assign_adaptively(anchors(), truth(boxes, crowd=list(range(len(boxes)))), topk=9, ignore_iof_thr=0.25)
    assert set(matched.tolist()) == ({IGNORED} if boxes else {BACKGROUND})


def test_a_crowd_is_never_matched_and_its_objects_keep_their_rows() -> None:
    target = truth([[0.0, 0, 64, 64], [20.0, 20, 60, 60]], crowd=[0])
    matched = assign_adaptively(anchors(), target, topk=9, ignore_iof_thr=0.5)
    alone = assign_adaptively(anchors(), truth([[20.0, 20, 60, 60]]), topk=9, ignore_iof_thr=0.5)
    assert torch.equal(matched == 1, alone == 0)
    assert (alone == 0).any()
    within = inside_fraction(torch.cat(anchors()), target.boxes[:1]) >= 0.5
    assert torch.equal(matched == IGNORED, within & (alone != 0))


def fcos(**settings: Any) -> FCOSHead:
    return FCOSHead(64, STRIDES, 3, stacked_convs=0, settings=FCOSSettings(borders=(32.0, 64.0), **settings))


def assigned(head: FCOSHead, target: Target) -> list[Tensor]:
    """Level by level a map of rows."""
    sides = [128 // s for s in STRIDES]
    cells = head.cells([torch.zeros(1, 1, side, side) for side in sides])
    found = head._assign(cells, target).split([side**2 for side in sides])
    return [level.view(side, side) for level, side in zip(found, sides, strict=True)]


def test_locations_near_the_middle_learn_the_smallest_object_of_their_level() -> None:
    fine, middle, coarse = assigned(fcos(), truth([[9.0, 9, 55, 55], [20.0, 20, 44, 44]]))
    expected = torch.full((16, 16), BACKGROUND)
    expected[3:5, 3:5] = 1  # those at 28 and 36, within 12 pixels of 32, lie in the middle of both: the smaller one's
    assert torch.equal(fine, expected)
    assert (middle == BACKGROUND).all()
    assert (coarse == BACKGROUND).all()


def test_without_center_sampling_all_that_lie_inside_learn() -> None:
    fine, _, _ = assigned(fcos(center_sample_radius=None), truth([[8.0, 8, 40, 40]]))
    assert (fine == 0).nonzero().tolist() == [[y, x] for y in range(1, 5) for x in range(1, 5)]


@pytest.mark.parametrize("closed", [True, False])
def test_a_distance_on_the_border_belongs_to_both_levels_or_to_neither(closed: bool) -> None:
    head = fcos(closed=closed, offset=0.0)
    fine, middle, _ = assigned(head, truth([[32.0, 32, 96, 96]]))  # 32 pixels from (64, 64) to every side
    assert int(fine[8, 8]) == int(middle[4, 4]) == (0 if closed else BACKGROUND)
    assert int(fine[8, 9]) == BACKGROUND  # 40 pixels from its left side: too far for the first level
    assert int(middle[4, 5]) == 0


@pytest.mark.parametrize("boxes", [[], [[0.0, 0, 128, 128]]])
def test_fcos_without_objects(boxes: list[list[float]]) -> None:
    found = assigned(fcos(), truth(boxes, crowd=list(range(len(boxes)))))
    assert {int(v) for level in found for v in level.unique()} == ({IGNORED} if boxes else {BACKGROUND})


def test_fcos_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = assigned(fcos(), truth(many(40)))
    monkeypatch.setattr("tldet.models.heads.fcos._CHUNK", 3000)
    assert all(torch.equal(a, b) for a, b in zip(whole, assigned(fcos(), truth(many(40))), strict=True))
    assert (whole[0] >= 0).any()


def test_the_share_in_a_crowd_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inside_fraction(torch.cat(anchors()), many(40))
    monkeypatch.setattr("tldet.models.boxes.PAIRS_AT_ONCE", 300)
    assert torch.equal(inside_fraction(torch.cat(anchors()), many(40)), whole)


def test_distances_and_centerness() -> None:
    points, boxes = torch.tensor([[3.0, 5.0], [10.0, 10.0]]), torch.tensor([[1.0, 1, 11, 9], [0.0, 0, 20, 20]])
    distances = to_distances(points, boxes)
    assert distances.tolist() == [[2, 4, 8, 4], [10, 10, 10, 10]]
    assert torch.equal(from_distances(points, distances), boxes)
    assert centerness(distances).tolist() == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize(("offset", "first"), [(0.0, [-16.0, -16, 16, 16]), (0.5, [-12.0, -12, 20, 20])])
def test_where_in_its_cell_an_anchor_lies(offset: float, first: list[float]) -> None:
    grid = AnchorGenerator([[32]], [1.0], [8], offset=offset)
    (level,) = grid([torch.zeros(1, 1, 2, 3)])
    assert level[0].tolist() == first
    assert (level[-1] - level[0]).tolist() == [16, 8, 16, 8]
