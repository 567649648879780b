"""Spatial attention: where in the map the information is (CBAM section 3, equation 3)."""

import torch
from torch import Tensor, nn

# The authors' code sets this momentum for the BatchNorm that follows the spatial convolution.
NORM_MOMENTUM = 0.01


class ChannelPool(nn.Module):
    """The maximum and the mean over the channels. Shape: (N, C, H, W) -> (N, 2, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the two pooled maps, maximum first as in the authors' code."""
        return torch.cat([x.max(dim=1, keepdim=True).values, x.mean(dim=1, keepdim=True)], dim=1)


def pointwise_descriptor(channels: int) -> nn.Sequential:
    """Return the learned descriptor of Table 2's '1x1 conv' rows: (N, C, H, W) -> (N, 1, H, W).

    The paper does not say what follows this convolution; BatchNorm, as after every other one.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 1, 1, bias=False), nn.BatchNorm2d(1, momentum=NORM_MOMENTUM)
    )


def zero_norm() -> nn.BatchNorm2d:
    """Return the BatchNorm of the authors' code, whose output starts as 0 everywhere."""
    norm = nn.BatchNorm2d(1, momentum=NORM_MOMENTUM)
    nn.init.zeros_(norm.weight)
    return norm


class SpatialAttention(nn.Module):
    """Raw spatial attention: BN(conv_kxk(descriptor(F))), before the sigmoid.

    The convolution has no bias. The BatchNorm is in the authors' code and not in the paper's
    formula; its weight starts at 0, so that the gate starts as the constant 0.5.

    Args:
        channels: C.
        descriptor: 'pool' (maximum and mean over the channels) or 'conv1x1' (learned).
        kernel: k, odd.
        norm: False leaves the BatchNorm out, as in the paper's formula.

    Shape: (N, C, H, W) -> (N, 1, H, W).

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(
        self, channels: int, *, descriptor: str = "pool", kernel: int = 7, norm: bool = True
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"expected an odd kernel so that the map keeps its size, got {kernel}")
        pool = descriptor == "pool"
        self.descriptor = ChannelPool() if pool else pointwise_descriptor(channels)
        self.conv = nn.Conv2d(2 if pool else 1, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = zero_norm() if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the raw attention of `x`."""
        raw: Tensor = self.norm(self.conv(self.descriptor(x)))
        return raw
