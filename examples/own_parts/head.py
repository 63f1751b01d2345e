"""Head that predicts class scores and distances to the sides of a box at each location (FCOS, Tian et al. 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from tldet.models.boxes import clip_batch
from tldet.models.heads.base import Head
from tldet.registry import HEADS


@HEADS.register_module()
class PointHead(Head):  # shapes: B images, M locations of all levels, G objects, K classes, N detections
    class_layers = ("scores",)

    def __init__(self, in_channels, strides, num_classes: int = 80, width: int = 64, score_thr: float = 0.05) -> None:
        super().__init__()
        self.strides, self.score_thr, self.num_classes = strides, score_thr, num_classes
        self.tower = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())
        self.scores, self.sides = nn.Conv2d(width, num_classes, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        nn.init.constant_(self.scores.bias, -4.6)  # probability 0.01

    def forward(self, features):
        towers = [self.tower(level) for level in features]
        return [self.scores(x) for x in towers], [F.softplus(self.sides(x)) for x in towers]

    def flatten(self, raw):
        """Return logits (B, M, K), boxes (B, M, 4), locations (M, 2) and their strides (M,)."""
        logits = torch.cat([x.flatten(2) for x in raw[0]], 2).transpose(1, 2).float()
        sides = torch.cat([x.flatten(2) * s for x, s in zip(raw[1], self.strides)], 2).transpose(1, 2).float()
        grids = [torch.ones(x.shape[-2:], device=x.device).nonzero().flip(1) + 0.5 for x in raw[0]]
        points = torch.cat([grid * stride for grid, stride in zip(grids, self.strides)])
        steps = torch.cat([torch.full_like(grid[:, 0], s) for grid, s in zip(grids, self.strides)])
        return logits, torch.cat([points - sides[..., :2], points + sides[..., 2:]], 2), points, steps

    def assign(self, points, steps, target):
        """Return the index (M,) of the smallest object whose center is near each location; -1 for background."""
        centers, extents = (target.boxes[:, :2] + target.boxes[:, 2:]) / 2, target.boxes[:, 2:] - target.boxes[:, :2]
        suited = (extents.amax(1) / 4).clamp(min(self.strides), max(self.strides))  # (G,) best stride of each object
        offset = (points[:, None] - centers).abs()  # (M, G, 2)
        near = (offset < torch.minimum(1.5 * steps[:, None, None], extents / 2)).all(2)
        near &= (steps[:, None] / suited).log2().abs() <= 0.5
        area = extents.prod(1).where(near, torch.inf)
        return area.argmin(1).where(near.any(1), -1) if len(centers) else torch.full_like(steps, -1).long()

    def loss(self, raw, targets, sizes, seed=None) -> dict[str, Tensor]:
        logits, boxes, points, steps = self.flatten(raw)
        classes, sides, count = logits.new_zeros(()), logits.new_zeros(()), 0
        for logit, box, target in zip(logits, boxes, targets):
            found = self.assign(points, steps, target)
            positive = (found >= 0).nonzero().flatten()
            objects = found[positive]
            wanted = torch.zeros_like(logit)
            wanted[positive, target.labels[objects]] = 1
            classes = classes + sigmoid_focal_loss(logit, wanted, reduction="sum")
            sides = sides + generalized_box_iou_loss(box[positive], target.boxes[objects], reduction="sum")
            count += len(positive)
        return {"loss_cls": classes / max(count, 1), "loss_bbox": sides / max(count, 1)}

    def decode_tensors(self, raw, sizes):
        logits, boxes, _, _ = self.flatten(raw)
        scores, labels = logits.sigmoid().max(2)
        scores, rows = scores.topk(min(100, scores.shape[1]))
        labels, boxes = labels.gather(1, rows), boxes.gather(1, rows[..., None].expand(-1, -1, 4))
        boxes = clip_batch(boxes, sizes)
        overlap = torch.stack([box_iou(one, one) for one in boxes]) * (labels[:, :, None] == labels[:, None])
        scores, order = scores.masked_fill(overlap.triu(1).amax(1) > 0.5, 0).sort(1, descending=True)
        boxes, labels = boxes.gather(1, order[..., None].expand(-1, -1, 4)), labels.gather(1, order)
        return boxes, scores, labels, (scores > self.score_thr).sum(1)
