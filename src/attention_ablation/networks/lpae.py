"""LPAE (Han et al. 2022, arXiv:2208.12484): an autoencoder as front-end, and a classifier on it.

Exact for ResNet50: equations and counts are the authors' code's. With another ResNet it is our
reading, by analogy. x is an image, (N, 3, H, W); all convolutions are biased, and those of the
autoencoder are linear, with nothing between them.

- Approximation c, (N, 3, H/2, W/2): 3x3 convolutions 3-16-16-16-3, the last with stride 2. Detail
  d, (N, 3, H, W): the same, none with a stride. This encoder is what a classifier has.
- Decoder, for the training only: x' = d + U(c), U a transposed 4x4 convolution 3-16 with stride 2
  and 3x3 convolutions 16-16-16-3.
- Loss of the autoencoder: mean |x - x'| + mean d^2 + 0.8 mean (c - h)^2, where h is x at half its
  size by bicubic interpolation with aligned corners. It is trained first; the encoder is then kept
  as it is.
- Classifier: features l of the network on c, and f of it at a quarter of its width on d; logits
  F l and G [l, f], each with a cross-entropy in the loss, and their mean in an evaluation.
- Its networks differ from ResNet: the stem is a convolution and the pooling; a shortcut has no
  BatchNorm; a block's last BatchNorm comes after the addition: relu(BN(conv3(...) + shortcut)).
- Start: Xavier uniform, biases 0.01. The authors' images are not normalised, ours are.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_ablation.networks.record import Backbone
from attention_ablation.networks.resnet import STEM_CHANNELS

CHANNELS = 16
APPROXIMATION_WEIGHT = 0.8
PARTS = ("reconstruction", "detail", "approximation")  # of the autoencoder's loss


def convolutions(*channels: int, stride: int = 1) -> list[nn.Module]:
    """Return 3x3 convolutions from each number of channels to the next, the last with a stride."""
    strides = [*[1] * (len(channels) - 2), stride]
    pairs = zip(channels, channels[1:], strides, strict=False)
    return [nn.Conv2d(given, made, 3, s, padding=1) for given, made, s in pairs]


class Encoder(nn.Module):
    """An image (N, 3, H, W) -> its approximation (N, 3, H/2, W/2) and detail (N, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, CHANNELS, CHANNELS, CHANNELS, 3)
        self.approximation = nn.Sequential(*convolutions(*channels, stride=2))
        self.detail = nn.Sequential(*convolutions(*channels))

    def forward(self, x: Tensor) -> Any:
        return self.approximation(x), self.detail(x)


class Autoencoder(Encoder):
    """(N, 3, H, W), H and W even -> approximation, detail and the image made of them."""

    def __init__(self) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(3, CHANNELS, 4, stride=2, padding=1)
        self.decoder = nn.Sequential(up, *convolutions(CHANNELS, CHANNELS, CHANNELS, 3))
        start(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c, d = super().forward(x)
        return c, d, d + self.decoder(c)


def losses(x: Tensor, c: Tensor, d: Tensor, made: Tensor) -> Tensor:
    """Return the loss of an autoencoder's outputs for x, and its three `PARTS`: (4,)."""
    c, d, made = c.float(), d.float(), made.float()  # sums of squares, which bf16 would round
    half = F.interpolate(x, size=c.shape[2:], mode="bicubic", align_corners=True)
    parts = [(x - made).abs().mean(), d.square().mean(), (c - half).square().mean()]
    return torch.stack([parts[0] + parts[1] + APPROXIMATION_WEIGHT * parts[2], *parts])


class Block(nn.Module):
    """relu(BN(convolutions(x) + shortcut(x))), with BatchNorm and ReLU between convolutions."""

    def __init__(
        self, inputs: int, kernels: Sequence[int], channels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        given = inputs
        for kernel, outputs, stride in zip(kernels, channels, strides, strict=True):
            layers.append(nn.Conv2d(given, outputs, kernel, stride, kernel // 2))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            given = outputs
        self.convolutions = nn.Sequential(*layers[:-2])
        self.stride = max(strides)
        moves = self.stride > 1 or inputs != given
        self.shortcut = nn.Conv2d(inputs, given, 1) if moves else nn.Identity()
        self.norm = nn.BatchNorm2d(given)

    def forward(self, x: Tensor) -> Tensor:
        # A 1x1 convolution that strides is the same; of fewer than 8 channels, channels last, its
        # gradient on a CPU writes where it must not (torch 2.15).
        shortcut = self.shortcut(x[:, :, :: self.stride, :: self.stride])
        return F.relu(self.norm(self.convolutions(x) + shortcut))


class Features(nn.Sequential):
    """A ResNet's stem, blocks and mean: (N, 3, H, W) -> (N, channels)."""

    def __init__(self, backbone: Backbone, width: float) -> None:
        network: Any = backbone.network
        channels = int(STEM_CHANNELS * width)
        parts = [nn.Conv2d(3, channels, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
        if backbone.stem == "cifar":
            parts = [nn.Conv2d(3, channels, 3, 1, 1)]
        kernels = (1, 3, 1) if network.bottleneck else (3, 3)
        late = network.bottleneck and backbone.stride == "v1.5"
        block_channels = iter(network.places(width)["inside-block"])
        for depth, first in zip(network.depths, (1, 2, 2, 2), strict=True):
            for stride in (first, *[1] * (depth - 1)):
                strides = ((1, stride, 1) if late else (stride, 1, 1))[: len(kernels)]
                outputs = next(block_channels)
                parts.append(Block(channels, kernels, outputs, strides))
                channels = outputs[-1]
        super().__init__(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.channels = channels


class Classifier(nn.Module):
    """(N, 3, H, W) -> (N, classes), in training both logits: (2, N, classes)."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.front_end = Encoder()
        self.low = Features(backbone, backbone.width)
        self.high = Features(backbone, backbone.detail_width)
        self.fc_low = nn.Linear(self.low.channels, classes)
        self.fc_both = nn.Linear(self.low.channels + self.high.channels, classes)
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        c, d = self.front_end(x)
        low = self.low(c)
        both = torch.cat([low, self.high(d)], dim=1)
        logits = torch.stack([self.fc_low(low), self.fc_both(both)])
        return logits if self.training else logits.mean(dim=0)


@torch.no_grad()
def start(network: nn.Module) -> None:
    """Start every layer but BatchNorm as the authors do."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.constant_(part.bias, 0.01)  # type: ignore[arg-type]
