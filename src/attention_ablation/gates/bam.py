"""BAM: channel and spatial attention side by side, once at the end of a stage."""

import operator

import torch
from torch import Tensor, nn

from attention_ablation.gates.parts import hidden_units, mean_of_map

COMBINE = {"sum": operator.add, "product": operator.mul}


class BAM(nn.Module):
    """F -> (1 + sigmoid(Mc(F) + Ms(F))) * F (eq. 1 and 2), after stages 1 to 3.

    Mc is W2 relu(BN(W1 mean(F))) (eq. 3); Ms is conv1x1 to C / r, two dilated conv3x3 and conv1x1
    to one channel (eq. 4), BatchNorm and ReLU between them. combine: 'sum', or 'product', Mc * Ms,
    as in the authors' code. It starts as there: convolutions Kaiming normal, fan-out, biases 0.

    Shape: (N, C, H, W) -> the same; in training a batch needs two images, for the BatchNorm of Mc.
    Raises ValueError for a reduction above the channels or another `combine`.
    """

    place = "stage-end"
    label = "exact"
    paper = "BAM, Park et al. 2018, arXiv:1807.06514"

    def __init__(
        self, channels: int, *, combine: str = "sum", reduction: int = 16, dilation: int = 4
    ) -> None:
        super().__init__()
        if combine not in COMBINE:
            raise ValueError(f"expected combine {' or '.join(COMBINE)}, got '{combine}'")
        self.combine = combine
        hidden = hidden_units(channels, reduction)
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, channels),
        )
        spatial: list[nn.Module] = [nn.Conv2d(channels, hidden, 1)]
        for _ in range(2):
            wide = nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)
            spatial += [nn.BatchNorm2d(hidden), nn.ReLU(), wide]
        spatial += [nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, 1, 1)]
        self.spatial = nn.Sequential(*spatial)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out")
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel(mean_of_map(x)).to(x.dtype)
        spatial = self.spatial(x).to(x.dtype)
        # Broadcast with the channels last, as trainings have their maps in memory.
        raw = COMBINE[self.combine](channel[:, None, None], spatial.movedim(1, 3)).movedim(3, 1)
        return torch.addcmul(x, x, raw.sigmoid())
