"""SCA-CNN: channel attention, then spatial attention, each a softmax with mean 1."""

import torch
from torch import Tensor, nn

from attention_ablation.gates.parts import hidden_units, mean_of_map

START_STD = 0.02  # of the layers before the softmaxes, so that both attentions start near 1


class SCA(nn.Module):
    """Channel-wise attention b, then spatial attention a: y = b x, out = a y.

    b = C softmax_C(w . tanh(u mean(x) + c)), with u, c, w in R^k shared by all channels, and
    a = HW softmax_HW(V tanh(U y)), with U and V 1x1 convolutions to k and to 1, with biases. The
    factors C and HW are of the authors' code: without them out would be near 0. On a map of one
    place a is 1.
    A reading: the paper's attention sees the state of an LSTM that writes captions as well, which a
    classifier does not have.
    k is C / r, or `hidden` but at most C; it is 512 in the paper.
    Shape: (N, C, H, W) -> the same. Raises ValueError for a reduction above C, and for a k below 1.
    """

    label = "reading"
    paper = "SCA-CNN, Chen et al. 2017, arXiv:1611.05594"

    def __init__(self, channels: int, *, reduction: int = 16, hidden: int | None = None) -> None:
        super().__init__()
        units = hidden_units(channels, reduction) if hidden is None else min(hidden, channels)
        if units < 1:
            raise ValueError(f"expected at least one hidden unit, got {hidden}")
        # As a linear layer from one input to k units starts: within 1.
        self.u = nn.Parameter(torch.empty(units).uniform_(-1, 1))
        self.c = nn.Parameter(torch.empty(units).uniform_(-1, 1))
        self.w = nn.Parameter(torch.empty(units).normal_(std=START_STD))
        last = nn.Conv2d(units, 1, 1)
        nn.init.normal_(last.weight, std=START_STD)
        self.spatial = nn.Sequential(nn.Conv2d(channels, units, 1), nn.Tanh(), last)

    def forward(self, x: Tensor) -> Tensor:
        pooled = mean_of_map(x)[:, :, None]  # (N, C, 1)
        scores = (self.u * pooled + self.c).tanh() @ self.w  # (N, C)
        b = _softmax_of_mean_one(scores)[:, :, None, None]
        y = x * b.to(x.dtype)
        scores = self.spatial(y)  # (N, 1, H, W)
        a = _softmax_of_mean_one(scores.flatten(1)).reshape(scores.shape)
        return y * a.to(x.dtype)


def _softmax_of_mean_one(scores: Tensor) -> Tensor:
    """Return n softmax over the n entries of each row: (N, n) -> (N, n)."""
    return scores.shape[1] * scores.softmax(dim=1)
