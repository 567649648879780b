"""ECA: channel attention by a convolution along the channels, without a hidden layer."""

import math

from torch import Tensor, nn

from attention_ablation.gates.parts import mean_of_map, weighted

ADAPTIVE = "adaptive"


class ECA(nn.Module):
    """F -> sigmoid(conv_k(mean(F))) * F, the mean over H and W, conv_k along C.

    kernel: 'adaptive' to C, as `adaptive_kernel` says; or one odd size at all places, such as 3,
    the default of the authors' code. bias: the convolution has one, which the paper's has not
    (as in arXiv:2111.09451). Shape: (N, C, H, W) -> the same. Raises ValueError for another kernel.
    """

    label = "exact"
    paper = "ECA-Net, Wang et al. 2020, arXiv:1910.03151"

    def __init__(
        self,
        channels: int,
        *,
        kernel: int | str = "adaptive",
        bias: bool = False,
        gain: int = 1,
    ) -> None:
        super().__init__()
        size = adaptive_kernel(channels) if kernel == ADAPTIVE else kernel
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(f"expected 'adaptive' or an odd kernel of at least 1, got {kernel!r}")
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=bias)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        pooled = mean_of_map(x)
        raw = self.conv(pooled[:, None]).squeeze(1)
        return weighted(x, raw[:, :, None, None], self.gain)


def adaptive_kernel(channels: int) -> int:
    """Return k(C) = |log2(C) / 2 + 1 / 2|odd, at least 3: 3 of 64, 5 of 128, 7 of 2048.

    As in the authors' code it is cut to an integer, and the odd one next above where that is even.
    """
    size = int((math.log2(channels) + 1) / 2)
    return max(3, size if size % 2 else size + 1)
