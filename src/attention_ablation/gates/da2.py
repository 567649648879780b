"""DA2-Net: branches with receptive fields of several sizes, weighted for each channel."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from attention_ablation.gates.parts import hidden_units, mean_of_map, weighted_sum


class DA2(nn.Module):
    """Diverse and adaptive attention: out = sum_i a_i B_i, a_i in R^C, over three branches.

    B = x, BN(DW x), BN(DW' x), where DW is a depthwise 3x3 convolution and DW' one with dilation 2.
    a = softmax over i of V_i v, with v = relu(BN(W mean(sum_i B_i))) of max(C / r, 2 r) units. No
    layer has biases; the BatchNorms need two images in training.
    A reconstruction: the paper's abstract speaks of features of diverse sizes and an adaptive
    selection among them, which is here that of SK-Net (arXiv:1903.06586).
    Shape: (N, C, H, W) -> the same. Raises ValueError for a reduction above C.
    """

    label = "reconstruction"
    paper = "DA2-Net, Girma et al. 2021, arXiv:2111.13157"

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        # SK-Net's floor is 32, which is 2 r at its r = 16: where a tier shrinks the network and r,
        # the floor shrinks with them, as 8 of 16 channels for 32 of 64.
        hidden = max(hidden_units(channels, reduction), 2 * reduction)
        self.branches = nn.ModuleList(_branch(channels, dilation) for dilation in (1, 2))
        self.squeeze = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.select = nn.Linear(hidden, 3 * channels, bias=False)  # all V_i

    @property
    def last_norms(self) -> Sequence[Any]:
        """The branches' BatchNorms.

        Of a map of zeros, at the end of a residual branch that starts so, they divide by the root
        of their epsilon, 1e-5: were their weights not 0 as well, gradients would come through them
        316 times as large.
        """
        return [norm for norm in self.branches.modules() if isinstance(norm, nn.BatchNorm2d)]

    def forward(self, x: Tensor) -> Tensor:
        maps = [x, *(branch(x) for branch in self.branches)]
        first, *others = (mean_of_map(branch) for branch in maps)
        scores = self.select(self.squeeze(sum(others, first)))
        return weighted_sum(maps, scores.unflatten(1, (3, -1)).softmax(dim=1))


def _branch(channels: int, dilation: int) -> nn.Module:
    """Return a depthwise 3x3 convolution that keeps the map's size, and its BatchNorm."""
    conv = nn.Conv2d(
        channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(channels))
