"""Wave-ViT (Yao et al. 2022, arXiv:2207.04978). Inside a stage maps are (N, H, W, C)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_ablation.networks.parts import attend, start

EPSILON = 1e-6  # of the LayerNorms before attention and FFN, and at a stage's end


def mixed(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> list[Tensor]:
    """Return the products of the orthonormal, symmetric 4x4 Haar matrix, which is its inverse."""
    return [(a + b + c + d) / 2, (a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2]


def haar(x: Tensor) -> Tensor:
    """Return the bands of the 2x2 pixels, one after the other: mean, and three differences.

    They are vertical, horizontal and diagonal. Shape: (N, C, H, W) -> (N, 4 C, H / 2, W / 2).
    """
    # Additions and no convolutions, which would be counted.
    pixels = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).unbind(2)
    return torch.cat(mixed(*pixels), 1)


def inverse_haar(bands: Tensor) -> Tensor:
    """Return the map that has these bands: (N, 4 C, H, W) -> (N, C, 2 H, 2 W)."""
    pixels = torch.stack(mixed(*bands.chunk(4, 1)), 2)
    return F.pixel_shuffle(pixels.flatten(1, 2), 2)


def places(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, HW, C)."""
    return x.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Plain self-attention: (N, H, W, C) -> the same."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1, 2)
        keys, values = self.key_value(flat).chunk(2, 2)
        attended = self.out(attend(self.query(flat), keys, values, self.heads))
        out: Tensor = attended.unflatten(1, x.shape[1:3])
        return out


class WaveAttention(nn.Module):
    """Attention to keys and values of w, beside the inverse transform of w (eq. 4 to 7).

    r = ReLU(BN(conv1x1 x)) to C / 4 channels, w = ReLU(BN(conv3x3 haar(r))); k, v = Linear(LN(conv
    of kernel and stride `reduction` of w)); out = Linear([attention, inverse haar(w)]).
    Shape: (N, H, W, C) -> the same, H and W even.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, inner = heads, channels // 4
        self.query = nn.Linear(channels, channels)
        conv = nn.Conv2d(channels, inner, 1)
        self.reduce = nn.Sequential(conv, nn.BatchNorm2d(inner), nn.ReLU(inplace=True))
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.filter = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.smaller = nn.Conv2d(channels, channels, reduction, reduction)
        self.norm = nn.LayerNorm(channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels + inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        w = self.filter(haar(self.reduce(x.movedim(3, 1))))
        keys, values = self.key_value(self.norm(places(self.smaller(w)))).chunk(2, 2)
        attended = attend(self.query(x.flatten(1, 2)), keys, values, self.heads)
        both = torch.cat([attended, places(inverse_haar(w))], 2)
        out: Tensor = self.out(both).unflatten(1, x.shape[1:3])
        return out


class FeedForward(nn.Module):
    """Linear(GELU(DW3x3 Linear(x))): (N, H, W, C) -> the same."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, hidden)
        self.local = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.last = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        local = self.local(self.first(x).movedim(3, 1)).movedim(1, 3)
        out: Tensor = self.last(F.gelu(local))
        return out


class Block(nn.Module):
    """x + attention(LN(x)), then x + FFN(LN(x)); reduction 0: plain attention."""

    def __init__(self, channels: int, heads: int, ratio: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.attention = (
            WaveAttention(channels, heads, reduction) if reduction else Attention(channels, heads)
        )
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.feed_forward = FeedForward(channels, ratio * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.feed_forward(self.norm2(x))
        return out


class Stage(nn.Module):
    """LN(conv3x3, stride 2), blocks, and a LayerNorm but in the last stage.

    Shape: (N, C, H, W) -> (N, C', H / 2, W / 2).
    """

    def __init__(self, inputs: int, outputs: int, blocks: Sequence[Block], *, last: bool) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(inputs, outputs, 3, 2, 1)
        self.norm = nn.LayerNorm(outputs)
        self.blocks = nn.Sequential(*blocks)
        if not last:
            self.blocks.append(nn.LayerNorm(outputs, eps=EPSILON))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.norm(self.embedding(x).movedim(1, 3)))
        return out.movedim(3, 1)


class ClassToken(nn.Module):
    """The mean t of the places, which attends to t and them: (N, C, H, W) -> (N, C).

    t + attention(LN([t, x])), then t + Linear(GELU(Linear(LN(t)))), then LN.
    """

    def __init__(self, channels: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels, eps=EPSILON) for _ in range(3))
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        hidden = ratio * channels
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = places(x)
        token = flat.mean(1, keepdim=True)
        seen = self.norm1(torch.cat([token, flat], 1))
        keys, values = self.key_value(seen).chunk(2, 2)
        token = token + self.out(attend(self.query(seen[:, :1]), keys, values, self.heads))
        token = token + self.feed_forward(self.norm2(token))
        out: Tensor = self.norm3(token[:, 0])
        return out


def wavevit(
    stem: int,
    channels: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    ratios: Sequence[int],
    reductions: Sequence[int],
    *,
    classes: int,
) -> nn.Sequential:
    """Return the network: (N, 3, H, W) -> (N, classes), after a stem of three convolutions."""
    first = nn.Sequential()
    for inputs, kernel, stride in ((3, 7, 2), (stem, 3, 1), (stem, 3, 1)):
        conv = nn.Conv2d(inputs, stem, kernel, stride, kernel // 2, bias=False)
        first.extend([conv, nn.BatchNorm2d(stem), nn.ReLU(inplace=True)])
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=first)
    inputs = stem
    stages = zip(channels, depths, heads, ratios, reductions, strict=True)
    for i, (outputs, depth, *shape) in enumerate(stages, 1):
        blocks = [Block(outputs, *shape) for _ in range(depth)]
        layers[f"stage{i}"] = Stage(inputs, outputs, blocks, last=i == len(channels))
        inputs = outputs
    layers["token"] = ClassToken(inputs, heads[-1], ratios[-1])
    layers["fc"] = nn.Linear(inputs, classes)
    network = nn.Sequential(layers)
    start(network)
    return network
