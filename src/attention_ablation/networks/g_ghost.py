"""RegNetX's block, and a stage of it as G-Ghost has them (Han et al. 2022, arXiv:2201.03297)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_ablation.networks.resnet import Bottleneck


class RegNetBlock(Bottleneck):
    """A bottleneck as wide inside as outside, in groups of `group` channels, with a gate.

    Shape: (N, C, H, W) -> (N, channels, H / stride, W / stride).
    """

    def __init__(
        self, inputs: int, channels: int, group: int, gate: nn.Module, stride: int = 1
    ) -> None:
        super().__init__(inputs, [channels] * 3, (1, stride, 1), channels // group)
        self.gate, self.inside = gate, False


class GhostStage(nn.Module):
    """A stage whose inner blocks see a part of the first block's maps; cheap maps stand for more.

    With x0 = first(x), split into channels a and b: e = inner(a); m = BN(W2 relu(BN(W1 g))), with
    g the means over the maps x0 and of each inner block; t = relu(BN(conv1x1(b)) + m); the output
    is last(concat(e, t)). The BatchNorms of m need two images in training.
    Shape: (N, C, H, W) -> (N, channels, H / 2, W / 2).
    """

    def __init__(
        self,
        inputs: int,
        channels: tuple[int, int],
        group: tuple[int, int],
        depth: int,
        gates: Iterator[nn.Module],
    ) -> None:
        """channels, group: of the first and the last block, and of the inner ones."""
        super().__init__()
        (outer, inner), (outer_group, inner_group) = channels, group
        self.parts = [inner, outer - inner]
        cheap = outer - inner
        self.first = RegNetBlock(inputs, outer, outer_group, next(gates), stride=2)
        self.inner = nn.Sequential(
            *(RegNetBlock(inner, inner, inner_group, next(gates)) for _ in range(depth - 2))
        )
        self.mix = nn.Sequential(
            nn.Linear(outer + (depth - 2) * inner, cheap, bias=False),
            nn.BatchNorm1d(cheap),
            nn.ReLU(inplace=True),
            nn.Linear(cheap, cheap, bias=False),
            nn.BatchNorm1d(cheap),
        )
        self.cheap = nn.Sequential(nn.Conv2d(cheap, cheap, 1, bias=False), nn.BatchNorm2d(cheap))
        self.last = RegNetBlock(outer, outer, outer_group, next(gates))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        means = [x.mean((2, 3))]
        expensive, rest = x.split(self.parts, 1)
        for block in self.inner:
            expensive = block(expensive)
            means.append(expensive.mean((2, 3)))
        mixed: Tensor = self.mix(torch.cat(means, 1))
        cheap = F.relu(self.cheap(rest) + mixed[:, :, None, None])
        out: Tensor = self.last(torch.cat([expensive, cheap], 1))
        return out
