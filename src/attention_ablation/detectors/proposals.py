"""Where objects may be: Faster R-CNN's anchors and proposals, trained as in its protocol."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import _utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

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
        super().set_low_quality_matches_(matches, every, overlaps[overlaps.amax(1) > 0])


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's proposals, which only anchors inside their image train, as in the protocol.

    Each image's losses are means over its own sampled anchors, 0 where it has none, and a batch's
    are the means of its images'.
    """

    def __init__(self, *parts: nn.Module, **numbers: Any) -> None:
        super().__init__(*parts, **numbers)
        thresholds = numbers["fg_iou_thresh"], numbers["bg_iou_thresh"]
        self.proposal_matcher = Matcher(*thresholds, allow_low_quality_matches=True)

    def forward(self, images: ImageList, features: dict[str, Tensor], targets: Any = None) -> Any:
        """Return every image's proposals, (n, 4) px each, and in training the two losses."""
        if targets is not None:
            sizes = images.image_sizes
            targets = [{**t, "size": size} for t, size in zip(targets, sizes, strict=True)]
        return super().forward(images, features, targets)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return each anchor's label and true box: 1 an object, 0 none, -1 not to train on.

        A target's `size` is its image's height and width, px.
        """
        labels, boxes = [], []
        for every, target in zip(anchors, targets, strict=True):
            height, width = target["size"]
            x0, y0, x1, y1 = every.unbind(1)
            inside = torch.where((x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height))[0]
            (label,), (box,) = super().assign_targets_to_anchors([every[inside]], [target])
            labels.append(every.new_full((len(every),), -1).index_copy(0, inside, label))
            boxes.append(every.index_copy(0, inside, box))
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
