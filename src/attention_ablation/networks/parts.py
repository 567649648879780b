"""What networks that start by their own rule are made of: their start, norms, attention."""

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def start(network: nn.Module, *, per_group: bool = True) -> None:
    """Start a network as timm's transformers do.

    Linear layers: normal, deviation 0.02. Convolutions: Kaiming normal, fan-out, of one group or,
    where not `per_group`, of all. Biases: 0.
    """
    for part in network.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Conv2d):
            fan_out = part.out_channels * math.prod(part.kernel_size)
            part.weight.normal_(0, math.sqrt(2 / fan_out * (part.groups if per_group else 1)))
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            part.bias.zero_()


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels at each place: (N, C, H, W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, 3)).movedim(3, 1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None
) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias) v of each head: (N, L, C) by (N, M, C) -> (N, L, C).

    bias: (heads, L, M).
    """
    # As matrix products and not fused, so that they are counted on every device.
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    logits = (q @ k.transpose(2, 3)) * q.shape[3] ** -0.5
    if bias is not None:
        logits = logits + bias
    out: Tensor = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return out
