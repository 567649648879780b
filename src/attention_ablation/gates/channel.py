"""Channel attention: which channels matter (CBAM section 3, equation 2)."""

import torch
from torch import Tensor, nn

POOLS = {
    "avg": lambda x: x.mean(dim=(2, 3)),
    # Not adaptive_max_pool2d, whose gradient is not deterministic on a GPU; not amax, whose
    # gradient takes four passes over the map.
    "max": lambda x: x.flatten(2).max(dim=2).values,
}


class ChannelAttention(nn.Module):
    """Raw channel attention: sum over the pools p of MLP(p(F)), before the sigmoid.

    `MLP = Linear(C, C/r), ReLU, Linear(C/r, C)`, with biases, is shared by the pools. With the
    average alone this is the squeeze-and-excitation gate (Hu et al. 2018).

    Args:
        channels: C.
        pooling: 'avg', 'max' or 'avg&max'.
        reduction: r; the hidden layer has round(C / r) units. (The paper's MobileNet counts need
            the rounding; where r divides C it changes nothing.)

    Shape: (N, C, H, W) -> (N, C, 1, 1).

    Raises:
        ValueError: the reduction is larger than the channels.
    """

    def __init__(self, channels: int, *, pooling: str = "avg&max", reduction: int = 16) -> None:
        super().__init__()
        if reduction > channels:
            raise ValueError(
                f"expected a reduction of at most the {channels} channels, got {reduction}"
            )
        hidden = round(channels / reduction)
        self.pools = pooling.split("&")
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the raw attention of `x`."""
        pooled = torch.stack([POOLS[pool](x) for pool in self.pools])  # (pools, N, C)
        raw: Tensor = self.mlp(pooled).sum(dim=0)
        return raw[:, :, None, None]
