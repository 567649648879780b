"""StairNet (Woo et al. 2018, arXiv 1709.05788): a top-down path over SSD's six maps.

CBAM's paper gives only the parameters in Table 7, which this layout meets: 32,005,600 on VGG16
without a gate; 5,981,600 on MobileNet, where several layouts would do.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from attention_ablation.detectors.record import LAYOUTS, Detector, gated_channels
from attention_ablation.detectors.ssd import Sources
from attention_ablation.gates.build import build_gate
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone


class Stair(nn.Module):
    """One step down: a 3x3 transposed convolution, its output cut on both sides to a finer map's.

    Shape: (N, C, H, W), (H', W') -> (N, C, H', W').
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
    and added to the next one; each sum goes through a convolution, BatchNorm, ReLU and the gate.
    Training needs two images at least where a map is of 1 px, for its BatchNorm.

    Shape: (N, 3, H, W) -> six of (N, channels[i], H_i, W_i), the finest first.
    """

    def __init__(self, detector: Detector, backbone: Backbone, attention: Attention) -> None:
        super().__init__()
        shape = LAYOUTS[backbone.network.family]
        light = shape.kernel == 1
        norm = nn.Identity if light else nn.BatchNorm2d
        self.sources = Sources(detector, backbone)
        self.channels = gated_channels(detector, backbone)
        self.laterals = nn.ModuleList(
            Conv2dNormActivation(inputs, outputs, 1, norm_layer=norm, activation_layer=None)
            for inputs, outputs in zip(self.sources.channels, self.channels, strict=True)
        )
        self.stairs = nn.ModuleList(
            Stair(self.channels[0], stride, light=light)
            for stride in (2, *(stride for _, _, stride in shape.extras))
        )
        self.fused = nn.ModuleList(
            Conv2dNormActivation(channels, channels, shape.kernel) for channels in self.channels
        )
        self.gates = nn.ModuleList(build_gate(attention, channels) for channels in self.channels)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = [lateral(x) for lateral, x in zip(self.laterals, self.sources(x), strict=True)]
        for i in reversed(range(len(self.stairs))):
            maps[i] = maps[i] + self.stairs[i](maps[i + 1], maps[i].shape[2:])
        return OrderedDict(
            (str(i), gate(fused(x)))
            for i, (x, fused, gate) in enumerate(zip(maps, self.fused, self.gates, strict=True))
        )
