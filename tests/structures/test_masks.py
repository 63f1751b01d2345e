"""Masks as patches: pasting by both conventions, encoding, drawing, conversion, and memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image

from tldet.models.detector import rescale
from tldet.runtime.drawing import color_of
from tldet.runtime.masks import Paste
from tldet.structures.detections import Detections
from tldet.structures.masks import InstanceMasks, dense, rles, windows
from tldet.visualize.drawing import draw

SIZE = (60, 80)
BOXES = torch.tensor(
    [[10.2, 8.7, 40.4, 30.1], [-6.0, -3.5, 20.0, 70.0], [50.0, 40.0, 80.0, 60.0], [30.5, 30.5, 30.6, 30.7],
     [12.0, 12.0, 12.0, 40.0], [70.0, 50.0, 95.0, 75.0], [0.0, 0.0, 80.0, 60.0]]
)  # fmt: skip
PASTES: tuple[Any, ...] = get_args(Paste)


def some(paste: Any = "sampled", side: int = 14) -> InstanceMasks:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(len(BOXES), 1, 4, 4, generator=generator)
    patches = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)[:, 0]
    return InstanceMasks(patches, BOXES.clone(), SIZE, paste=paste)


def found(masks: Any) -> Detections:
    count = len(BOXES)
    scores, labels = torch.linspace(0.9, 0.3, count), torch.arange(count) % 3
    return Detections(BOXES.clone(), scores, labels, masks, ("a", "b", "c"))


def test_resized_is_torchvision_s() -> None:
    masks = some("resized")
    expected = paste_masks_in_image(masks.patches[:, None], BOXES, SIZE)[:, 0] >= 0.5
    assert torch.equal(masks.dense().bool(), expected)


def test_sampled_looks_every_pixel_of_the_image_up() -> None:
    """The definition, without windows: pixel centers in the coordinates of the box, zero beyond the patch."""
    masks = some("sampled")
    y, x = torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5
    for row, (x0, y0, x1, y1) in enumerate(BOXES.tolist()):
        if x1 == x0:
            continue  # no width, no coordinate
        across, down = (x - x0) / (x1 - x0) * 2 - 1, (y - y0) / (y1 - y0) * 2 - 1
        grid = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], -1)
        expected = F.grid_sample(masks.patches[row][None, None], grid[None], align_corners=False)[0, 0] >= 0.5
        assert int((masks.dense()[row].bool() != expected).sum()) <= 1, row  # rounding at the threshold


def reference(whole: torch.Tensor) -> list[Any]:
    encoded: list[Any] = coco_mask.encode(np.asfortranarray(whole.numpy().transpose(1, 2, 0)))
    return encoded


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.mask.decode
@pytest.mark.parametrize("paste", PASTES)
def test_all_forms_give_the_same_masks(paste: Any) -> None:
    masks = some(paste)
    whole = masks.dense()
    assert whole.shape == (len(BOXES), *SIZE)
    assert whole.dtype == torch.uint8
    assert masks.areas().tolist() == whole.flatten(1).sum(1).tolist()
    assert masks.areas().sum() > 1000
    decoded = np.stack([coco_mask.decode(rle) for rle in masks.rles()])
    np.testing.assert_array_equal(decoded, whole.numpy())
    assert rles(whole) == masks.rles()
    assert [rle["counts"].encode() for rle in masks.rles()] == [r["counts"] for r in reference(whole)]
    assert torch.equal(dense(masks), dense(whole))
    assert all(w.inside.shape <= SIZE for w in windows(masks))
    rows = torch.tensor([True, False] * 3 + [True])
    for chosen in (rows, rows.nonzero().flatten(), slice(1, 4)):
        assert torch.equal(masks[chosen].dense(), whole[chosen])


@pytest.mark.parametrize("paste", PASTES)
def test_nothing(paste: Any) -> None:
    none = some(paste)[:0]
    assert none.dense().shape == (0, *SIZE)
    assert none.rles() == []
    assert none.areas().shape == (0,)
    one = InstanceMasks(torch.ones(1, 4, 4), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), (1, 1), paste=paste)
    assert one.dense().tolist() == [[[1]]]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_detections_carry_masks_everywhere() -> None:
    one = found(some())
    whole = one.dense_masks()
    assert whole is not None
    assert one.above(0.6).masks is not None
    assert torch.equal(one.above(0.6).dense_masks(), whole[one.scores >= 0.6])  # type: ignore[arg-type]
    records = one.to("cpu").to_coco(7, [1, 2, 3])
    assert [coco_mask.decode(r["segmentation"]).sum() for r in records] == whole.flatten(1).sum(1).tolist()
    assert found(whole).to_coco(7, [1, 2, 3]) == records, "dense masks give the same"
    with pytest.raises(ValueError, match=r"masks must be \(7, H, W\), not \(3"):
        found(some()[:3])


def test_supervision_takes_dense_masks() -> None:
    pytest.importorskip("supervision")
    one = found(some()).to_supervision()
    np.testing.assert_array_equal(one.mask, some().dense().bool().numpy())


def test_rescaling_carries_them_to_the_original_image() -> None:
    scaled = rescale(found(some()), SIZE, (180, 160), ("a", "b", "c"))
    whole = scaled.dense_masks()
    assert whole is not None
    assert whole.shape == (len(BOXES), 180, 160)
    row = 6  # the whole image
    coarse = F.interpolate(whole[row][None, None].float(), SIZE, mode="area")[0, 0] >= 0.5
    assert (coarse == some().dense()[row].bool()).float().mean() > 0.97


def test_drawing_tints_the_pixels_of_the_mask() -> None:
    masks = some()[:1]
    one = Detections(torch.tensor([[70.0, 50.0, 79.0, 59.0]]), torch.tensor([0.9]), torch.tensor([0]), masks, ("a",))
    drawn = draw(np.full((*SIZE, 3), 100, np.uint8), one)
    inside = masks.dense()[0].bool().numpy()
    tint = (0.55 * 100 + 0.45 * np.array(color_of(0))).astype(np.uint8)
    inside[35:] = False  # where the box and its name are drawn
    assert inside.sum() > 100
    assert (drawn[inside] == tint).all()
    outside = ~masks.dense()[0].bool().numpy()
    outside[35:] = False
    assert (drawn[outside] == 100).all()


PEAK = """
import resource, torch
from tldet.structures.masks import InstanceMasks
low = torch.rand(50, 2) * 2000
boxes = torch.cat([low, low + 300 + torch.rand(50, 2) * 500], 1)
masks = [InstanceMasks(torch.rand(50, 28, 28), boxes, (3000, 4000)) for _ in range(2)]
masks[0][:1].rles()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(len(one.rles()) + len(one.areas()) for one in masks)
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_holds_one_mask_at_a_time() -> None:
    """Two images of 12 megapixels with 50 objects would be 1.2 GB."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    count, kilobytes = (int(value) for value in done.stdout.split())
    assert count == 200
    assert kilobytes * (1 if sys.platform != "darwin" else 1 / 1024) < 100_000
