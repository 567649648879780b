"""Faster R-CNN in its C4 form (Ren et al. 2015), by the protocol of Chen and Gupta 2017.

On torchvision's classes; the split of the network, numbers, samples, crops and losses are the
protocol's. Not as in the protocol's code for residual networks (tf-faster-rcnn):

- A crop is max-pooled from twice as many samples, as its report has it for VGG16 and its code no
  longer does; a sample beyond the last cell has that cell's value, there 0.
- Where an image has fewer regions than are to be sampled, there they are repeated. A true box that
  no anchor inside the image overlaps makes none of them an object, there all that miss it.
- Objectness is one logit and its sigmoid, there two and their softmax. Anchors of ratio 1/2 and 2
  have the area of the square ones, there sides rounded to whole multiples of the scale.
- Boxes end before x1 and y1, there they include them.
- The backbone, its strides, the normalisation of images and the gates are this project's.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import _utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from attention_ablation.detectors.record import RPN_CHANNELS, Detector
from attention_ablation.detectors.trunk import OnTrunk, Transform, build_trunk
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import stream
from attention_ablation.networks.record import Backbone

CROP = 14  # samples on a side of a region, pooled to half as many
LONGEST = 1000 / 600  # longest side at most, over the shorter
# Once for an image: (N, 3, H, W) -> (N, 1024 x width, H/16, W/16).
SHARED = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
FIXED = ("conv1", "bn1", "layer1")
STRIDE = 16  # of layer3's map
ANCHORS = (64, 128, 256, 512)  # sides at a shorter side of 600 px: scales 4, 8, 16, 32 of STRIDE
ANCHORS_AT = 600
RATIOS = (0.5, 1.0, 2.0)  # height over width


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors, centred in their cells and in full precision, as in the protocol."""

    def __init__(self, image_size: int) -> None:
        sides = tuple(side * image_size / ANCHORS_AT for side in ANCHORS)
        super().__init__((sides,), (RATIOS,))

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        # Not in autocast's precision.
        super().set_cell_anchors(torch.float32, device)

    def grid_anchors(self, grid_sizes: list[list[int]], strides: object) -> list[Tensor]:
        """Return the anchors of every cell: x0, y0, x1, y1 in px, (cells x 12, 4)."""
        # torchvision's strides are too small where an image's last cell reaches over its edge.
        return [a + STRIDE / 2 for a in super().grid_anchors(grid_sizes, [[STRIDE, STRIDE]])]


class ProposalHead(nn.Module):
    """A 3x3 convolution, then objectness and box offsets of each of a cell's anchors."""

    def __init__(self, inputs: int, hidden: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.cls_logits = nn.Conv2d(hidden, anchors, 1)
        self.bbox_pred = nn.Conv2d(hidden, 4 * anchors, 1)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return (N, anchors, H, W) logits and (N, 4 x anchors, H, W) offsets of every map."""
        hidden = [F.relu(self.conv(x)) for x in maps]
        logits = [self.cls_logits(x).float() for x in hidden]
        return logits, [self.bbox_pred(x).float() for x in hidden]


class Matcher(_utils.Matcher):  # type: ignore[misc]
    """torchvision's, where there may be nothing to match, or a true box that nothing overlaps."""

    def __call__(self, overlaps: Tensor) -> Any:
        """Return the true box of each candidate, negative where none: (boxes, n) -> (n,)."""
        none = overlaps.new_zeros(0, dtype=torch.int64)
        return super().__call__(overlaps) if overlaps.shape[1] else none

    def set_low_quality_matches_(self, matches: Tensor, every: Tensor, overlaps: Tensor) -> None:
        """Match the candidates that overlap a true box most, unless none overlaps it at all."""
        most = overlaps.amax(1, keepdim=True)
        best = ((overlaps == most) & (most > 0)).any(0)
        matches.copy_(torch.where(best, every, matches))


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's proposals, which only anchors inside their image train, as in the protocol.

    A batch's losses are the means of its images', theirs means over their own samples or 0.
    """

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return each anchor's label and true box: 1 an object, 0 none, -1 not to train on."""
        labels, boxes = [], []
        for every, target in zip(anchors, targets, strict=True):
            height, width = target["size"]
            x0, y0, x1, y1 = every.unbind(1)
            inside = (x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height)
            true = {"boxes": target["boxes"].to(every.device, non_blocking=True)}
            placed = every * inside[:, None]  # the others overlap nothing
            (label,), (box,) = super().assign_targets_to_anchors([placed], [true])
            labels.append(torch.where(inside, label, -1))
            boxes.append(torch.where(inside[:, None], box, every))
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, offsets: Tensor, labels: list[Tensor], expected: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the objectness and the box loss, means over the images."""
        positive, negative = (torch.stack(chosen).bool() for chosen in self.fg_bg_sampler(labels))
        sampled = positive | negative
        weight = sampled / sampled.sum(1, keepdim=True).clamp(min=1) / len(labels)
        at, objects = (torch.where(chosen.flatten())[0] for chosen in (sampled, positive))
        loss = F.binary_cross_entropy_with_logits(
            objectness.flatten()[at], torch.cat(labels)[at], weight.flatten()[at], reduction="sum"
        )
        pair = offsets[objects], torch.cat(expected)[objects]
        box_loss = F.smooth_l1_loss(*pair, beta=1 / 9, reduction="none").sum(1)
        return loss, (box_loss * weight.flatten()[objects]).sum()


def _per_region(layer4: nn.Module) -> nn.Module:
    """Return layer4 with stride 1 and the mean of its map: (R, C, side, side) -> (R, 2C)."""
    for name, conv in layer4.named_modules():
        if isinstance(conv, nn.Conv2d) and "gate" not in name.split("."):
            conv.stride = (1, 1)
    mean = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(layer4=layer4, **mean))


class RegionPool(nn.Module):
    """A crop of every region, max-pooled by two: (N, C, H, W), boxes -> (R, C, crop/2, crop/2).

    The `crop` samples on a side reach from edge to edge of a region and are bilinear, hence
    separable: two matrix products, whose gradient is deterministic, which RoIAlign's is not.
    """

    def __init__(self, crop: int) -> None:
        super().__init__()
        self.crop = crop

    def forward(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: object
    ) -> Tensor:
        """Return the regions' features; boxes are x0, y0, x1, y1 in px of the network's input."""
        crops = []
        for x, on_image in zip(features["0"], boxes, strict=True):
            channels, height, width = x.shape
            x0, y0, x1, y1 = on_image.unbind(1)
            columns = x.permute(1, 2, 0).reshape(height, width * channels)
            rows = _samples(y0, y1, height, self.crop).view(-1, height) @ columns
            across = _samples(x0, x1, width, self.crop)[:, None]
            # (R, crop, crop, C)
            crops.append(across @ rows.view(-1, self.crop, width, channels))
        return F.max_pool2d(torch.cat(crops).permute(0, 3, 1, 2), 2)


def _samples(low: Tensor, high: Tensor, size: int, count: int) -> Tensor:
    """Return the weights of cells in `count` samples from low to high px: (R, count, size)."""
    steps = torch.linspace(0, 1, count, dtype=low.dtype, device=low.device)
    at = (low[:, None] + (high - low)[:, None] * steps) / STRIDE
    cells = torch.arange(size, device=low.device)
    return (1 - (at.clamp(0, size - 1)[:, :, None] - cells).abs()).clamp(min=0)


class RegionHeads(RoIHeads):  # type: ignore[misc]
    """torchvision's heads with the protocol's regions to train on and its box loss.

    The box loss is smooth L1 with the bend at 1, torchvision's at 1/9. A batch's losses are the
    means of its images', theirs means over their own regions or 0.
    """

    def add_gt_proposals(self, proposals: list[Tensor], gt_boxes: object) -> list[Tensor]:
        # torchvision would add the true boxes.
        return list(proposals)

    def forward(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: Any, targets: Any = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return every image's detections, or the losses in training."""
        if self.training:
            to = {"device": features["0"].device, "non_blocking": True}
            true = [{name: t[name].to(**to) for name in ("boxes", "labels")} for t in targets]
            proposals, _, labels, offsets = self.select_training_samples(proposals, true)
        pooled = self.box_roi_pool(features, proposals, sizes)
        logits, regression = (out.float() for out in self.box_predictor(self.box_head(pooled)))
        if not self.training:
            found = self.postprocess_detections(logits, regression, proposals, sizes)
            names = ("boxes", "scores", "labels")
            return [dict(zip(names, image, strict=True)) for image in zip(*found, strict=True)], {}
        shares = [o.new_full((len(o),), 1 / (max(1, len(o)) * len(labels))) for o in offsets]
        weight = torch.cat(shares)
        label, offset = torch.cat(labels), torch.cat(offsets)
        matched = torch.where(label > 0)[0]
        own_class = regression.view(len(label), logits.shape[1], 4)[matched, label[matched]]
        box_loss = F.smooth_l1_loss(own_class, offset[matched], reduction="none").sum(1)
        class_loss = F.cross_entropy(logits, label, reduction="none")
        return [], {
            "loss_classifier": (class_loss * weight).sum(),
            "loss_box_reg": (box_loss * weight[matched]).sum(),
        }


class FasterRCNN(OnTrunk, GeneralizedRCNN):  # type: ignore[misc]
    """Faster R-CNN C4 on a residual network with gates.

    Losses in training: 'loss_classifier', 'loss_box_reg', 'loss_objectness', 'loss_rpn_box_reg'.
    Every BatchNorm, those of the gates too, keeps the statistics and the factors it was loaded
    with, and conv1 and layer1 with their gates do not learn: without loaded weights a spatial gate
    stays the constant 0.5. Regions are sampled from torch's global random stream.
    """

    def __init__(
        self,
        detector: Detector,
        backbone: Backbone,
        attention: Attention,
        classes: int,
        transform: Transform,
    ) -> None:
        trunk = build_trunk(backbone, attention)
        shared = nn.Sequential(OrderedDict((name, trunk[name]) for name in SHARED))
        sums: Any = backbone.network.gated_channels(backbone.width, "over-stage")
        stages = [blocks[-1] for blocks in sums]  # their channels
        anchors = Anchors(transform.min_size[0])
        hidden = int(RPN_CHANNELS * detector.width)
        proposals = Proposals(
            anchors,
            ProposalHead(stages[2], hidden, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 12000, "testing": 6000},
            post_nms_top_n={"training": 2000, "testing": detector.proposals or 300},
            nms_thresh=0.7,
        )
        heads = RegionHeads(
            RegionPool(detector.crop or CROP),
            _per_region(trunk["layer4"]),
            FastRCNNPredictor(stages[3], classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=detector.regions or 256,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),  # over the standard deviations 0.1 and 0.2
            score_thresh=0.0,
            nms_thresh=0.3,
            detections_per_img=100,
        )
        proposals.proposal_matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)
        heads.proposal_matcher = Matcher(0.5, 0.5)
        super().__init__(shared, proposals, heads, transform)
        for name in FIXED:
            trunk[name].requires_grad_(False)
        for norm in self._norms():
            norm.requires_grad_(False)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Return the losses or every image's detections, see `build_detector`.

        Only images of one shape go together: gates pool over whole maps, padding included.
        """
        shapes: dict[torch.Size, list[int]] = {}
        for i, image in enumerate(images):
            shapes.setdefault(image.shape, []).append(i)
        parts = [
            super(FasterRCNN, self).forward(
                [images[i] for i in part], targets and [targets[i] for i in part]
            )
            for part in shapes.values()
        ]
        if self.training:
            shares = [len(part) / len(images) for part in shapes.values()]
            return {
                name: sum(share * losses[name] for share, losses in zip(shares, parts, strict=True))
                for name in parts[0]
            }
        found = dict(zip(chain(*shapes.values()), chain(*parts), strict=True))
        return [found[i] for i in range(len(images))]

    @property
    def trunk(self) -> Any:
        parts = dict(self.backbone.named_children())
        return nn.ModuleDict(parts | {"layer4": self.roi_heads.box_head.layer4})

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def initialise_heads(self, seed: int) -> None:
        """Initialise the new layers: normal, of spread 0.001 for the regions' boxes, else 0.01."""
        for name, module in self.named_modules():
            if name.startswith(("rpn.head.", "roi_heads.box_predictor.")):
                spread = 0.001 if name.endswith("box_predictor.bbox_pred") else 0.01
                nn.init.normal_(module.weight, std=spread, generator=stream(seed, name))

    def _norms(self) -> list[nn.Module]:
        # Only the backbone has any.
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
