"""BA-Net: channel attention that sees the maps of all convolutions of its block."""

from torch import Tensor, nn

from attention_ablation.gates.parts import hidden_units, mean_of_map, weighted


class BA(nn.Module):
    """Bridge attention: out = g sigmoid(W relu(sum_i BN(W_i mean(f_i)))) x.

    f_1 ... f_n are the outputs of the block's convolutions, after their ReLU where they have one,
    and f_n is x. Each has a linear layer of its own and a BatchNorm, which in training needs two
    images; no layer has biases. g is the gain of `parts.weighted`.
    Shape: a list of (N, C_i, H_i, W_i) -> (N, C_n, H_n, W_n). Raises ValueError for a reduction
    above C_n, of which W has the r-th part as its inputs.
    """

    place = "inside-block"
    label = "exact"
    paper = "BA-Net, Zhao et al. 2022, arXiv:2112.04150"

    def __init__(self, channels: list[int], *, reduction: int = 16, gain: int = 1) -> None:
        super().__init__()
        hidden = hidden_units(channels[-1], reduction)
        self.bridges = nn.ModuleList(
            nn.Sequential(nn.Linear(c, hidden, bias=False), nn.BatchNorm1d(hidden))
            for c in channels
        )
        self.expand = nn.Linear(hidden, channels[-1], bias=False)
        self.gain = gain

    def forward(self, maps: list[Tensor]) -> Tensor:
        first, *others = (
            bridge(mean_of_map(x)) for bridge, x in zip(self.bridges, maps, strict=True)
        )
        raw = self.expand(sum(others, first).relu())
        return weighted(maps[-1], raw[:, :, None, None], self.gain)
