"""A constant factor: a control that has a gate's initial gain and nothing else of it."""

from torch import Tensor, nn


class Scale(nn.Module):
    """The map times a constant: F -> factor * F; no parameters. Shape: (N, C, H, W) -> the same.

    A sigmoid starts at 1/2, so that SE and the parallel arrangement of CBAM start as a factor of
    1/2, and CBAM's two gates, one after the other, as 1/4.
    """

    def __init__(self, channels: int, *, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x
