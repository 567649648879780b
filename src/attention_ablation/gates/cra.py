"""CRA: channel attention by a depthwise convolution over a pooled map of 7x7, not by its mean."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_ablation.gates.parts import weighted

SIDE = 7  # of the pooled map


def max_pool(x: Tensor) -> Tensor:
    """Return `adaptive_max_pool2d` to 7x7: (N, C, H, W) -> (N, C, 7, 7)."""
    height, width = x.shape[2:]
    if height % SIDE == 0 and width % SIDE == 0:
        return F.max_pool2d(x, (height // SIDE, width // SIDE))
    # That one's gradient is not deterministic on a GPU; one of gather is.
    places = F.adaptive_max_pool2d(x.detach(), SIDE, return_indices=True)[1]
    # Channels last, so that the gradient of x has them last in memory, as x has in trainings.
    found = x.flatten(2).transpose(1, 2).gather(1, places.flatten(2).transpose(1, 2))
    pooled: Tensor = found.transpose(1, 2).unflatten(2, (SIDE, SIDE))
    return pooled


def avg_pool(x: Tensor) -> Tensor:
    """Return `adaptive_avg_pool2d` to 7x7: (N, C, H, W) -> (N, C, 7, 7)."""
    height, width = x.shape[2:]
    if height % SIDE == 0 and width % SIDE == 0:
        return F.avg_pool2d(x, (height // SIDE, width // SIDE))
    # That one's gradient is not deterministic on a GPU; one of a matrix product is.
    return cells(x, height) @ x @ cells(x, width).mT


def cells(x: Tensor, size: int) -> Tensor:
    """Return the means over the cells of a side, floor(i H / 7) to ceil((i + 1) H / 7): (7, H)."""
    cell = torch.arange(SIDE, device=x.device)[:, None]
    place = torch.arange(size, device=x.device)
    inside = (place >= cell * size // SIDE) & (place * SIDE < (cell + 1) * size)
    return (inside / inside.sum(dim=1, keepdim=True)).to(x.dtype)


POOLS = {"max": max_pool, "avg": avg_pool}


class CRA(nn.Module):
    """F -> sigmoid(dw_7x7(pool(F))) * F, the pool to 7x7, the convolution depthwise, not padded.

    The paper does not settle the pool: 'max' is the authors' code's, 'avg' the alternative. Cells
    of maps below 7x7 overlap, which repeats places. It starts as in that code: Kaiming normal,
    fan-in, and a bias of 0; the gate of a channel then is anything from 0 to 1. Shape:
    (N, C, H, W) -> the same. Raises ValueError for another pool.
    """

    label = "exact"
    paper = "CRA, Shen and Wen 2020, arXiv:2010.05605"

    def __init__(self, channels: int, *, pool: str = "max", gain: int = 1) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"expected pool {' or '.join(POOLS)}, got '{pool}'")
        self.pool = pool
        self.conv = nn.Conv2d(channels, channels, SIDE, groups=channels)
        nn.init.kaiming_normal_(self.conv.weight)
        nn.init.zeros_(self.conv.get_parameter("bias"))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return weighted(x, self.conv(POOLS[self.pool](x)), self.gain)
