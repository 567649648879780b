"""CMT (Guo et al. 2022, arXiv:2107.06263). All maps are (N, C, H, W)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attention_ablation.base.errors import UserError
from attention_ablation.networks.parts import ChannelNorm, attend, start

EPSILON = 1e-6  # of the LayerNorms in blocks


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d) + positions) v, k and v of a map that is smaller by `reduction`.

    That is BN(depthwise conv of kernel and stride k). Shape: (N, C, H, W) -> the same; positions:
    (heads, HW, HW / k^2).
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(channels, channels) for _ in range(4)
        )
        self.reduce = nn.Sequential()
        if reduction > 1:
            conv = nn.Conv2d(channels, channels, reduction, reduction, groups=channels)
            self.reduce.extend([conv, nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor, *, positions: Tensor) -> Tensor:
        places, few = (y.flatten(2).transpose(1, 2) for y in (x, self.reduce(x)))
        keys, values = self.key(few), self.value(few)
        attended = attend(self.query(places), keys, values, self.heads, positions)
        out: Tensor = self.out(attended).transpose(1, 2).unflatten(2, x.shape[2:])
        return out


class FeedForward(nn.Module):
    """u = BN(GELU(conv1x1 x)), x -> BN(conv1x1 BN(GELU(u + DW3x3 u))): the inverted residual."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, hidden, 1)
        self.first = nn.Sequential(conv, nn.GELU(), nn.BatchNorm2d(hidden))
        self.local = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        conv = nn.Conv2d(hidden, channels, 1)
        norms = nn.BatchNorm2d(hidden), nn.BatchNorm2d(channels)
        self.last = nn.Sequential(nn.GELU(), norms[0], conv, norms[1])

    def forward(self, x: Tensor) -> Tensor:
        u = self.first(x)
        out: Tensor = self.last(u + self.local(u))
        return out


class Block(nn.Module):
    """x + DW3x3 x, then x + attention(LN(x)), then x + FFN(LN(x))."""

    def __init__(self, channels: int, heads: int, reduction: int, ratio: float) -> None:
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = ChannelNorm(channels, eps=EPSILON)
        self.attention = Attention(channels, heads, reduction)
        self.norm2 = ChannelNorm(channels, eps=EPSILON)
        self.feed_forward = FeedForward(channels, int(channels * ratio))

    def forward(self, x: Tensor, *, positions: Tensor) -> Tensor:
        x = x + self.local(x)
        x = x + self.attention(self.norm1(x), positions=positions)
        out: Tensor = x + self.feed_forward(self.norm2(x))
        return out


class Stage(nn.Module):
    """LN(conv2x2, stride 2), blocks: (N, C, H, W) -> (N, C', side, side) of H = W = 2 side."""

    def __init__(
        self, inputs: int, outputs: int, depth: int, heads: int, reduction: int, ratio: float,
        *, side: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding = nn.Sequential(nn.Conv2d(inputs, outputs, 2, 2), ChannelNorm(outputs))
        self.positions = nn.Parameter(torch.randn(heads, side**2, (side // reduction) ** 2))
        self.blocks = nn.ModuleList(Block(outputs, heads, reduction, ratio) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x, positions=self.positions)  # by its name: torch's counter looks at others
        return x


class CMTNet(nn.Sequential):
    """The network: (N, 3, image_size, image_size) -> (N, classes).

    A stem of three conv3x3, the first with stride 2, each with GELU and BN; four stages; conv1x1 to
    `features`, BN, SiLU; mean; linear. Raises UserError for images of another size.
    """

    def __init__(
        self,
        stem: int,
        channels: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        reductions: Sequence[int],
        ratio: float,
        *,
        features: int,
        classes: int,
        image_size: int,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.stem = nn.Sequential()
        for inputs, stride in ((3, 2), (stem, 1), (stem, 1)):
            conv = nn.Conv2d(inputs, stem, 3, stride, 1)
            self.stem.extend([conv, nn.GELU(), nn.BatchNorm2d(stem)])
        side, inputs = image_size // 2, stem
        stages = zip(channels, depths, heads, reductions, strict=True)
        for i, (outputs, depth, of, reduction) in enumerate(stages, 1):
            side //= 2
            stage = Stage(inputs, outputs, depth, of, reduction, ratio, side=side)
            self.add_module(f"stage{i}", stage)
            inputs = outputs
        conv = nn.Conv2d(inputs, features, 1)
        self.last = nn.Sequential(conv, nn.BatchNorm2d(features), nn.SiLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(features, classes)
        start(self, per_group=False)

    def forward(self, x: Tensor) -> Tensor:
        size = self.image_size
        if x.shape[2:] != (size, size):
            raise UserError(
                f"CMT: expected images of {size}x{size} px, for which its tables of positions were "
                f"made, got {x.shape[2]}x{x.shape[3]}; build it for their size."
            )
        logits: Tensor = super().forward(x)
        return logits
