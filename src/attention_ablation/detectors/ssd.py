"""SSD (Liu et al. 2016) on torchvision's class: matching and suppression are its own."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import ssd
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from attention_ablation.detectors.record import LAYOUTS, Detector, SingleShotLayout, source_channels
from attention_ablation.detectors.trunk import OnTrunk, Transform, build_trunk
from attention_ablation.gates.build import build_gate
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import stream
from attention_ablation.networks.record import Backbone

STEPS_AT = 300  # the image size, in px, that the published distances of the cells are for
# Aspect ratios beside 1 on each of the six maps. Each ratio gives a wide and a tall box, and 1
# gives two sizes: 6, 6, 6, 6, 4 and 4 boxes a cell.
RATIOS = [[2, 3]] * 4 + [[2]] * 2


class L2Norm(nn.Module):
    """Scale every position's channels to a learned length, 20 at first (Liu et al. 2016, 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 20.0))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.scale[:, None, None]


class Extra(nn.Module):
    """A 1x1 and a 3x3 convolution that halve a map (stride 2) or take its border off (stride 1).

    A smaller map than 3 px, of a small image, is padded to 3 px before its border is taken off.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, stride=stride, padding=stride // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        if self.conv2.padding == (0, 0):
            missing = [max(0, 3 - size) for size in (x.shape[3], x.shape[2])]
            if any(missing):
                x = F.pad(x, [part for m in missing for part in (m // 2, m - m // 2)])
        return F.relu(self.conv2(x))


class Sources(nn.Module):
    """The backbone's two maps and four extra ones, the finest first (Liu et al. 2016, 2.1).

    Shape: (N, 3, H, W) -> six of (N, channels[i], H_i, W_i); at 300 px their sides are 38, 19, 10,
    5, 3, 1 on VGG16 and 19, 10, 5, 3, 2, 1 on MobileNet.
    """

    def __init__(self, detector: Detector, backbone: Backbone) -> None:
        super().__init__()
        shape = LAYOUTS[backbone.network.family]
        self.taps = backbone.network.taps(backbone.width)
        self.channels = source_channels(detector, backbone)
        self.trunk = build_trunk(backbone, Attention())
        pairs = pairwise(self.channels[1:])
        self.rescale = L2Norm(self.channels[0]) if shape.rescale else nn.Identity()
        self.extras = nn.ModuleList(
            Extra(inputs, int(hidden * detector.width), outputs, stride)
            for (inputs, outputs), (hidden, _, stride) in zip(pairs, shape.extras, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for name, layer in self.trunk["features"].named_children():
            x = layer(x)
            if name in self.taps:
                maps.append(x)
        maps[0] = self.rescale(maps[0])
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


class DefaultBoxes(DefaultBoxGenerator):  # type: ignore[misc]
    """torchvision's default boxes, made once for a size of maps and in full precision."""

    def __init__(self, shape: SingleShotLayout, image_size: int) -> None:
        steps = list(shape.steps) if shape.steps and image_size == STEPS_AT else None
        super().__init__(RATIOS, scales=list(shape.scales), steps=steps)
        self._made: dict[object, Tensor] = {}

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the boxes of every image: x0, y0, x1, y1 in px, (boxes, 4) each.

        In training they are on the CPU, as the true boxes are that torchvision matches with them.
        """
        device = torch.device("cpu") if self.training else feature_maps[0].device
        shapes = tuple(m.shape[-2:] for m in feature_maps)
        key = (device, image_list.tensors.shape[-2:], shapes)
        if key not in self._made:
            # In bfloat16, as autocast may have the maps, a coordinate would be off by a pixel.
            maps = [torch.empty(shape, dtype=torch.float32, device=device) for shape in shapes]
            first = ImageList(image_list.tensors, image_list.image_sizes[:1])
            (self._made[key],) = super().forward(first, maps)
        return [self._made[key]] * len(image_list.image_sizes)


class Heads(nn.Module):
    """The class and the box convolution of every map, with `boxes[i]` boxes a cell of map i."""

    def __init__(self, channels: list[int], boxes: list[int], classes: int, kernel: int) -> None:
        super().__init__()
        self.classes = classes
        self.classification, self.regression = (
            nn.ModuleList(
                nn.Conv2d(c, n * outputs, kernel, padding=kernel // 2)
                for c, n in zip(channels, boxes, strict=True)
            )
            for outputs in (classes, 4)
        )

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Return (N, boxes, classes) logits and (N, boxes, 4) offsets, cell by cell of each map."""

        def predict(convolutions: nn.ModuleList, columns: int) -> Tensor:
            parts = [
                # (N, boxes * columns, H, W) -> (N, H * W * boxes, columns)
                conv(x).permute(0, 2, 3, 1).reshape(len(x), -1, columns)
                for conv, x in zip(convolutions, maps, strict=True)
            ]
            return torch.cat(parts, dim=1).float()

        return {
            "cls_logits": predict(self.classification, self.classes),
            "bbox_regression": predict(self.regression, 4),
        }


class GatedSources(nn.Module):
    """The six maps of SSD, each with a gate right before its classifier."""

    def __init__(self, detector: Detector, backbone: Backbone, attention: Attention) -> None:
        super().__init__()
        self.sources = Sources(detector, backbone)
        self.channels = self.sources.channels
        self.gates = nn.ModuleList(build_gate(attention, channels) for channels in self.channels)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = zip(self.sources(x), self.gates, strict=True)
        return OrderedDict((str(i), gate(x)) for i, (x, gate) in enumerate(maps))


class SingleShot(OnTrunk, ssd.SSD):  # type: ignore[misc]
    """A detector that classifies default boxes on the six maps of SSD's or StairNet's `features`.

    Losses in training are 'bbox_regression' and 'classification', each over the number of matched
    default boxes. `mean_matches` returns the mean of that number over the processes that share a
    batch; the mean of their losses is then the loss of the whole batch. torchvision's defaults are
    the paper's. An image without a box has no hard negatives. Targets are on the CPU, and matched
    there: how many boxes match is known without waiting for the device.
    """

    def __init__(
        self, features: Any, backbone: Backbone, classes: int, transform: Transform
    ) -> None:
        shape = LAYOUTS[backbone.network.family]
        boxes = DefaultBoxes(shape, transform.max_size)
        counts = boxes.num_anchors_per_location()
        heads = Heads(features.channels, counts, classes + 1, shape.kernel)
        super().__init__(features, boxes, transform.fixed_size, classes + 1, head=heads)
        self.mean_matches: Callable[[Tensor], Tensor] = lambda matches: matches
        self.transform = transform

    def compute_loss(
        self, targets: Any, head_outputs: Any, anchors: list[Tensor], matches: list[Tensor]
    ) -> dict[str, Tensor]:
        """Return torchvision's losses, digit for digit, over the mean of the processes' matches.

        matches: each default box's true box, by its number in the image, negative where none.
        """
        logits, boxes = (head_outputs[n].flatten(0, 1) for n in ("cls_logits", "bbox_regression"))
        at = torch.where(torch.cat(matches) >= 0)[0]
        true = [match[match >= 0] for match in matches]
        counts = [len(match) for match in true]
        corners, labels = (
            torch.cat([target[name][match] for target, match in zip(targets, true, strict=True)])
            for name in ("boxes", "labels")
        )
        offsets = self.box_coder.encode_single(corners, anchors[0][at % len(anchors[0])])
        at, offsets, labels = (x.to(boxes.device, non_blocking=True) for x in (at, offsets, labels))
        box_loss = F.smooth_l1_loss(boxes[at], offsets, reduction="none")
        expected = labels.new_zeros(len(logits)).index_copy(0, at, labels)
        class_loss = F.cross_entropy(logits, expected, reduction="none")
        # The hardest boxes without a match, three for each of their image's that has one. Their
        # number is known here; where they are, on the device.
        matched = (expected > 0).view(len(matches), -1)
        others = class_loss.detach().view_as(matched).masked_fill(matched, -torch.inf)
        rank = others.argsort(1, descending=True).argsort(1)
        hard = rank < self.neg_to_pos_ratio * matched.sum(1, keepdim=True)
        total = sum(min(int(self.neg_to_pos_ratio * n), rank.shape[1]) for n in counts)
        negative = torch.nonzero_static(hard.flatten(), size=total)[:, 0]
        own = logits.new_full((), len(at))
        mean = self.mean_matches(own)
        share = own / torch.where(mean > 0, mean, 1)
        losses = {
            "bbox_regression": torch.stack([part.sum() for part in box_loss.split(counts)]).sum(),
            "classification": class_loss[at].sum() + class_loss[negative].sum(),
        }
        return {name: loss / max(1, len(at)) * share for name, loss in losses.items()}

    @property
    def trunk(self) -> Any:
        return self.backbone.sources.trunk

    def initialise_heads(self, seed: int) -> None:
        """Initialise the heads and the extra maps: Xavier uniform, as in Liu et al. 2016."""
        new = ("head.", "backbone.sources.extras.")
        for name, module in self.named_modules():
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, generator=stream(seed, name))
            elif isinstance(module, nn.Conv2d) and name.startswith(new):
                nn.init.xavier_uniform_(module.weight, generator=stream(seed, name))
