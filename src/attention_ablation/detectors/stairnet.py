"""StairNet (Woo et al. 2018, arXiv 1709.05788): a top-down path over SSD's six maps.

The paper of CBAM gives no more of it than the parameters in Table 7, which this layout meets: on
VGG16 32,005,600 without a gate; on MobileNet, where several layouts would do, 5,981,600.
"""

from collections import OrderedDict

from torch import Tensor, nn

from attention_ablation.detectors.record import Detector
from attention_ablation.detectors.shapes import gated_channels, single_shot
from attention_ablation.detectors.sources import Sources
from attention_ablation.gates.build import build_gate
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone


class Stair(nn.Module):
    """One step down: a 3x3 transposed convolution to the size of the next finer map.

    It has the stride with which the coarser map was made from the finer one, and no padding, so
    that its output is as large as the finer map or larger; what is too much is cut off on both
    sides. Shape: (N, C, H, W), (H', W') -> (N, C, H', W').
    """

    def __init__(self, channels: int, stride: int, *, light: bool) -> None:
        super().__init__()
        groups = channels if light else 1
        self.conv = nn.ConvTranspose2d(
            channels, channels, 3, stride=stride, groups=groups, bias=False
        )
        self.norm = nn.Identity() if light else nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.conv(x)
        top, left = ((have - want + 1) // 2 for have, want in zip(x.shape[2:], size, strict=True))
        out: Tensor = self.norm(x[:, :, top : top + size[0], left : left + size[1]])
        return out


class StairFeatures(nn.Module):
    """Six fused maps of equal channels, each with a gate right before its classifier.

    Each source goes through a 1x1 convolution; from the coarsest down, the sum so far is enlarged
    and added to the next one; each sum goes through a convolution of its own (3x3 on VGG16,
    1x1 on MobileNet), BatchNorm and ReLU, and the gate. Training needs two images at least where
    a map is of 1 px, for its BatchNorm.

    Shape: (N, 3, H, W) -> six of (N, channels[i], H_i, W_i), the finest first.
    """

    def __init__(self, detector: Detector, backbone: Backbone, attention: Attention) -> None:
        super().__init__()
        shape = single_shot(backbone)
        self.sources = Sources(detector, backbone)
        self.channels = gated_channels(detector, backbone)
        strides = [2, *(stride for _, _, stride in shape.extras)]

        def lateral(inputs: int, outputs: int) -> nn.Sequential:
            norm = nn.Identity() if shape.light else nn.BatchNorm2d(outputs)
            return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), norm)

        def fused(channels: int) -> nn.Sequential:
            kernel = 1 if shape.light else 3
            conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

        pairs = zip(self.sources.channels, self.channels, strict=True)
        self.laterals = nn.ModuleList(lateral(inputs, outputs) for inputs, outputs in pairs)
        self.stairs = nn.ModuleList(
            Stair(self.channels[0], stride, light=shape.light) for stride in strides
        )
        self.fused = nn.ModuleList(fused(channels) for channels in self.channels)
        self.gates = nn.ModuleList(build_gate(attention, channels) for channels in self.channels)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = [lateral(x) for lateral, x in zip(self.laterals, self.sources(x), strict=True)]
        for i in reversed(range(len(self.stairs))):
            maps[i] = maps[i] + self.stairs[i](maps[i + 1], maps[i].shape[2:])
        return OrderedDict(
            (str(i), gate(fused(x)))
            for i, (x, fused, gate) in enumerate(zip(maps, self.fused, self.gates, strict=True))
        )
