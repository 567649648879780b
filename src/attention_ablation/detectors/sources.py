"""The six maps that SSD and StairNet predict from (Liu et al. 2016, 2.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_ablation.detectors.record import Detector
from attention_ablation.detectors.shapes import single_shot, source_channels
from attention_ablation.detectors.trunk import build_trunk
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone


class L2Norm(nn.Module):
    """Scale every position's channels to a learned length each, 20 at first.

    conv4_3 has larger values than the other maps (Liu et al. 2016, 3.1). Shape: (N, C, H, W) -> the
    same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 20.0))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.scale[:, None, None]


class Extra(nn.Module):
    """A 1x1 and a 3x3 convolution that halve a map (stride 2) or take its border off (stride 1).

    At 300 px no map with a border to take off is smaller than 3 px. One that is, as small images
    have it, is padded to 3 px, so that 1 px is left. Shape: (N, C, H, W) -> (N, C', H', W').
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
    """The backbone's two maps and four extra ones, the finest first.

    `channels` are those of the maps. Shape: (N, 3, H, W) -> six of (N, channels[i], H_i, W_i); at
    300 px their sides are 38, 19, 10, 5, 3, 1 on VGG16 and 19, 10, 5, 3, 2, 1 on MobileNet.
    """

    def __init__(self, detector: Detector, backbone: Backbone) -> None:
        super().__init__()
        shape = single_shot(backbone)
        self.taps = backbone.network.taps(backbone.width)
        self.channels = source_channels(detector, backbone)
        self.trunk = build_trunk(backbone, Attention())
        self.rescale = L2Norm(self.channels[0]) if shape.rescale else nn.Identity()
        self.extras = nn.ModuleList(
            Extra(inputs, int(hidden * detector.width), outputs, stride)
            for inputs, (hidden, _, stride), outputs in zip(
                self.channels[1:], shape.extras, self.channels[2:], strict=False
            )
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
