"""D-FINE (Peng et al. 2024), and RT-DETRv2 (Lv et al. 2024) as settings of the same head.

Every location of the feature maps predicts classes and a box, and the best locations become queries. The decoder
refines their boxes (see :mod:`tldet.models.query_decoder`). In training, the Hungarian algorithm matches each object to
one query of each layer; the decoder must also recover the objects from noisy copies (contrastive denoising, Zhang et
al. 2023, DINO, section 3.3); and the last layer is the teacher of the others.

Letters for shapes: B images, L levels, M locations of all levels, Q queries, D denoising queries, K classes, C
channels, G objects in the image with the most objects. Boxes are (center x, center y, width, height), relative to the
padded image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.models.assigners.hungarian import NONE, MatchCosts, PaddedTargets, match_queries, merged, objects_of
from tldet.models.assigners.matching import generator_for
from tldet.models.boxes import Sizes, clip_batch, corners_of
from tldet.models.denoising import Denoising, denoising_queries
from tldet.models.heads.base import Head
from tldet.models.losses import LossNormalizers, Normalizer
from tldet.models.necks.fpn import BatchNorm
from tldet.models.postprocess import DetectionTensors, best_pairs, take_rows
from tldet.models.query_decoder import DecoderOptions, Prediction, QueryDecoder
from tldet.models.query_losses import (
    ClassLoss,
    LossScope,
    background_of,
    class_loss,
    distillation_terms,
    fine_grained_loss,
    pair_iou,
    pairs_of,
    query_box_losses,
)
from tldet.models.query_proposals import Proposals
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target

_STAGE = 7  # stream of random numbers
_OBJECTS, _PAIRS, _NOISY = 10.0, 20.0, 100.0  # initial running means per image


@dataclass(frozen=True)
class DFineSettings:
    """Losses, denoising queries and selection of detections. The defaults are those of the papers.

    Attributes:
        class_loss: "vfl" or "mal", see :func:`~tldet.models.query_losses.class_loss`.
        alpha: weight of negatives in the varifocal loss.
        gamma: exponent of the classification loss: 2 for "vfl", 1.5 for "mal" (DEIM).
        class_weight: factor of the classification loss.
        l1_weight: factor of the L1 loss.
        giou_weight: factor of the GIoU loss.
        fgl_weight: factor of the fine-grained localization loss.
        ddf_weight: factor of localization self-distillation.
        class_cost: weight of the focal cost in matching.
        l1_cost: weight of the L1 cost.
        giou_cost: weight of the GIoU cost.
        num_dn_queries: maximum number of positive denoising queries per image, with as many negatives; 0 for none.
        label_noise_scale: half of this fraction of the denoising queries gets a random class.
        box_noise_scale: largest shift of a side, relative to half the box size; negatives shift by 1 to 2 times that.
        loss_normalizer: "running": running mean of the objects per image, independent of the split into micro-batches;
            "batch": number of objects in the micro-batch (papers).
        convention: "paper": the box losses use the union of the assignments of all layers, and the number of denoising
            groups depends on the image only; "transformers": each layer has its own assignment, the scores and boxes
            of a layer are trained with the distributions of the next one, and all images get the groups of the image
            with the most objects, as in transformers 5.24, to compare numbers.
        score_thr: score threshold of detections.
        max_per_img: largest number of detections per image.
        ignore_iof_thr: fraction of a box inside a crowd region at or above which it is not trained as background.
    """

    class_loss: ClassLoss = "vfl"
    alpha: float = 0.75
    gamma: float = 2.0
    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    fgl_weight: float = 0.15
    ddf_weight: float = 1.5
    class_cost: float = 2.0
    l1_cost: float = 5.0
    giou_cost: float = 2.0
    num_dn_queries: int = 100
    label_noise_scale: float = 0.5
    box_noise_scale: float = 1.0
    loss_normalizer: Normalizer = "running"
    convention: Literal["paper", "transformers"] = "paper"
    score_thr: float = 0.0
    max_per_img: int = 300
    ignore_iof_thr: float = 0.5

    def __post_init__(self) -> None:
        require_ranges(self, alpha="[0, inf)", gamma="[0, inf)", num_dn_queries="[0, inf]", label_noise_scale="[0, 2]")
        require_ranges(self, class_weight="[0, inf)", l1_weight="[0, inf)", giou_weight="[0, inf)")
        require_ranges(self, class_cost="[0, inf)", l1_cost="[0, inf)", giou_cost="[0, inf)")
        require_ranges(self, fgl_weight="[0, inf)", ddf_weight="[0, inf)", box_noise_scale="[0, inf)")
        require_ranges(self, score_thr="[0, 1]", max_per_img="[1, inf]", ignore_iof_thr="[0, inf]")


class DFineRaw(NamedTuple):
    """Raw outputs; the first D queries of each layer are denoising queries."""

    layers: tuple[Prediction, ...]  # with distributions, the first one contains the initial boxes
    proposals: Prediction
    denoising: Denoising | None
    size: Size  # of the padded image, pixels


@HEADS.register_module()
class DFineHead(Head):
    """Query-based detection without NMS.

    Args:
        in_channels: channels of the feature maps.
        strides: their strides, finest first.
        num_classes: K.
        num_queries: Q; fewer if the maps have fewer locations.
        project_inputs: "fit" projects the maps only if their channels differ from those of the decoder (D-FINE),
            "always" projects them in any case (RT-DETR).
        prior: initial class score.
        decoder: see :class:`~tldet.models.query_decoder.DecoderOptions`.
        settings: see :class:`DFineSettings`.

    Raises:
        ValueError: the points of the decoder do not fit the levels, or its heads the channels.
    """

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int],
        num_classes: int = 80,
        *,
        num_queries: int = 300,
        project_inputs: Literal["fit", "always"] = "fit",
        prior: float = 0.01,
        decoder: DecoderOptions | None = None,
        settings: DFineSettings | None = None,
    ) -> None:
        super().__init__()
        options = decoder or DecoderOptions()
        c = options.channels
        self.num_classes, self.strides, self.num_queries = num_classes, tuple(strides), num_queries
        self.settings = settings or DFineSettings()
        project = project_inputs == "always" or in_channels != c
        projection = nn.Sequential(nn.Conv2d(in_channels, c, 1, bias=False), BatchNorm(c)) if project else nn.Identity()
        self.input_proj = nn.ModuleList(copy.deepcopy(projection) for _ in strides)
        self.proposal = Proposals(c, num_classes)
        self.decoder = QueryDecoder(options, len(self.strides), num_classes)
        self.denoising_embed = nn.Embedding(num_classes + 1, c, padding_idx=num_classes)
        names = [f"decoder.layers.{number}.cls_score" for number in range(options.layers)]
        self.background_layers = ("denoising_embed",)  # its last row is padding
        self.class_layers = ("proposal.cls_score", *names, *self.background_layers)
        for name in self.class_layers[:-1]:
            nn.init.constant_(self.get_parameter(f"{name}.bias"), -math.log((1 - prior) / prior))
        counts = {"objects": _OBJECTS, "pairs": _PAIRS, "noisy": _NOISY}
        self.normalizers = LossNormalizers(self.settings.loss_normalizer, **counts)

    def forward(
        self, features: Sequence[Tensor], targets: Sequence[Target] | None = None, seed: int | None = None
    ) -> DFineRaw:
        """Compute the predictions of the proposals and of every decoder layer.

        Args:
            features: L x (B, in_channels, H, W).
            targets: ground truth of each image in pixels, for denoising queries in training mode.
            seed: seed of the step for the noise; None uses torch's global random state.
        """
        size = (features[0].shape[-2] * self.strides[0], features[0].shape[-1] * self.strides[0])
        maps = [project(level) for project, level in zip(self.input_proj, features, strict=True)]
        proposals, queries = self.proposal(maps, self.num_queries)
        boxes, mask, noisy = proposals.boxes.detach(), None, None
        if self.training and targets and self.settings.num_dn_queries:
            noisy = self._denoising(targets, size, seed)
        if noisy is not None:
            mask = noisy.mask(queries.shape[1])
            queries = torch.cat([self.denoising_embed(noisy.labels).to(queries.dtype), queries], 1)
            boxes = torch.cat([noisy.boxes, boxes], 1)
        elif self.training:  # zero gradients for all parameters, which data-parallel training waits for
            queries = queries + 0 * self.denoising_embed.weight.sum()
        return DFineRaw(self.decoder(queries, boxes, maps, mask), proposals, noisy, size)

    def loss(
        self, raw: DFineRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute classification, L1, GIoU, fine-grained localization and distillation loss, summed over the layers."""
        totals: dict[str, Tensor] = {}
        for losses in self.layer_losses(raw, targets).values():
            for name, value in losses.items():
                totals[name] = totals[name] + value if name in totals else value
        return totals

    def _denoising(self, targets: Sequence[Target], size: Size, seed: int | None) -> Denoising | None:
        s = self.settings
        return denoising_queries(
            objects_of(targets, size),
            self.num_classes,
            [generator_for(seed, target.image_id, _STAGE) for target in targets],
            count=s.num_dn_queries,
            label_noise=s.label_noise_scale,
            box_noise=s.box_noise_scale,
            same_groups=s.convention == "transformers",
        )

    def layer_losses(self, raw: DFineRaw, targets: Sequence[Target]) -> dict[str, dict[str, Tensor]]:
        """Compute the weighted losses of each prediction: ``layer 0``, ..., ``proposals``, ``denoising 0``, ..."""
        s, objects, images = self.settings, objects_of(targets, raw.size), len(targets)
        first = 0 if raw.denoising is None else raw.denoising.labels.shape[1]
        layers = [one.part(first, None) for one in raw.layers]
        outputs = {f"layer {n}": one for n, one in enumerate(self._aligned(layers, main=True))}
        outputs["proposals"] = raw.proposals
        costs = MatchCosts(s.class_cost, s.l1_cost, s.giou_cost)
        matched = match_queries(list(outputs.values()), objects, costs)
        count = self.normalizers.divisor("objects", sum(objects.counts), images)
        united, pairs = None, count
        if s.convention == "paper" and self.decoder.options.refinement == "distribution":
            united = merged(matched, max(objects.counts))
            pairs = self.normalizers.divisor("pairs", (united != NONE).sum(), images)
        rest = images * raw.proposals.logits.shape[1] - pairs
        found = {}
        for (name, one), own in zip(outputs.items(), matched, strict=True):
            scope = LossScope(objects, own, own if united is None else united, None, None, count, pairs, pairs, rest)
            found[name] = self._losses(one, layers[-1], scope, raw.size, targets)
        if raw.denoising is not None:
            found |= self._denoising_losses(raw, raw.denoising, objects, count, targets)
        return found

    def _denoising_losses(
        self, raw: DFineRaw, noisy: Denoising, objects: PaddedTargets, count: float | Tensor, targets: Sequence[Target]
    ) -> dict[str, dict[str, Tensor]]:
        """Compute the same losses for the denoising queries with their known objects, averaged over the groups."""
        layers = [one.part(None, noisy.labels.shape[1]) for one in raw.layers]
        weights = 1 / noisy.groups.clamp(min=1)
        matched = self.normalizers.divisor("noisy", (noisy.assigned != NONE).sum(), len(targets))
        rest = noisy.counted.sum() - matched if self.settings.convention == "transformers" else matched
        scope = LossScope(objects, noisy.assigned, noisy.assigned, noisy.counted, weights, count, count, matched, rest)
        aligned = enumerate(self._aligned(layers, main=False))
        return {f"denoising {n}": self._losses(a, layers[-1], scope, raw.size, targets) for n, a in aligned}

    def _aligned(self, layers: Sequence[Prediction], *, main: bool) -> list[Prediction]:
        """Return the predictions as they are trained; see ``convention`` of :class:`DFineSettings`."""
        if self.settings.convention == "paper" or self.decoder.options.refinement == "box":
            return list(layers)
        pairs = zip(layers, layers[1:-1] if main else layers[1:], strict=False)
        shifted = [Prediction(one.logits, one.boxes, after.corners, after.origins) for one, after in pairs]
        return [*shifted, Prediction(*layers[-1][:2])] if main else shifted

    def _losses(
        self, one: Prediction, teacher: Prediction, scope: LossScope, size: Size, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Compute the weighted losses of one prediction."""
        s, boxes = self.settings, one.boxes.clamp(0, 1)
        scored, pairs = pairs_of(scope.scored, scope.truth), pairs_of(scope.boxes, scope.truth)
        counted = background_of(boxes.detach(), size, targets, s.ignore_iof_thr)
        iou = pair_iou(boxes.detach(), scored)
        classes = class_loss(one.logits, scored, iou, counted, kind=s.class_loss, alpha=s.alpha, gamma=s.gamma)
        l1, giou = query_box_losses(boxes, pairs)
        losses = {
            "loss_cls": s.class_weight * scope.queries(classes.sum(-1)).sum() / scope.objects,
            "loss_bbox": s.l1_weight * scope.of(l1, pairs.image).sum() / scope.pairs,
            "loss_giou": s.giou_weight * scope.of(giou, pairs.image).sum() / scope.pairs,
        }
        if one.corners is None or one.origins is None:
            return losses
        quality = pair_iou(boxes.detach(), pairs)
        bins, reg_scale = self.decoder.bin_values(), self.decoder.get_buffer("reg_scale")
        fine = fine_grained_loss(one.corners, one.origins, pairs, bins, reg_scale) * quality
        losses["loss_fgl"] = s.fgl_weight * scope.of(fine, pairs.image).sum() / scope.pairs
        if one.corners is not teacher.corners:
            terms, matched = distillation_terms(one.corners, teacher, pairs, quality)
            losses["loss_ddf"] = s.ddf_weight * scope.distilled(terms, matched)
        return losses

    def decode_tensors(self, raw: DFineRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the best (query, class) pairs of each image; see :meth:`Head.decode_tensors`."""
        last, (height, width) = raw.layers[-1], raw.size
        scores, rows, labels = best_pairs(last.logits.float().sigmoid(), self.settings.max_per_img)
        x0, y0, x1, y1 = take_rows(corners_of(last.boxes.float()), rows).unbind(-1)
        boxes = torch.stack([x0 * width, y0 * height, x1 * width, y1 * height], -1)
        good = scores > self.settings.score_thr
        boxes = clip_batch(boxes, sizes).masked_fill(~good[..., None], 0)
        scores, labels = scores.masked_fill(~good, 0), labels.masked_fill(~good, 0)
        return DetectionTensors(boxes, scores, labels, good.sum(1))
