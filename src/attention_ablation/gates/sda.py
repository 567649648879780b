"""SDA-xNet: attention over depth, which weights the outputs of all blocks of a stage."""

from torch import Tensor, nn

from attention_ablation.gates.parts import hidden_units, mean_of_map, weighted_sum


class SDA(nn.Module):
    """Selective depth attention: out = sum_i a_i Z_i, a_i in R^C.

    Z_i is the sum of block i before its ReLU. a = softmax over i of V_i v + b_i, with
    v = relu(BN(W mean(sum_i Z_i))) of max(C / r, 4 r) units; its BatchNorm needs two images in
    training.
    Shape: a list of n (N, C, H, W) -> (N, C, H, W). Raises ValueError for a reduction above C, and
    for blocks of unequal channels.
    """

    place = "over-stage"
    label = "exact"
    paper = "SDA-xNet, Guo et al. 2022, arXiv:2209.10327"

    def __init__(self, channels: list[int], *, reduction: int = 16) -> None:
        super().__init__()
        width, blocks = channels[-1], len(channels)
        if set(channels) != {width}:
            raise ValueError(f"expected blocks of equal channels, got {channels}")
        # The authors' floor is 64, which is 4 r at their r = 16: where a tier shrinks the network
        # and r, the floor shrinks with them, as 16 of 16 channels for 64 of 64.
        hidden = max(hidden_units(width, reduction), 4 * reduction)
        reduce = nn.Linear(width, hidden, bias=False)
        self.squeeze = nn.Sequential(reduce, nn.BatchNorm1d(hidden), nn.ReLU())
        self.select = nn.Linear(hidden, blocks * width)  # all V_i and b_i
        # As the authors' convolutions: Kaiming normal by fan-out, which of each V_i is C.
        nn.init.kaiming_normal_(reduce.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.select.weight, std=(2 / width) ** 0.5)
        self.blocks = blocks

    def forward(self, maps: list[Tensor]) -> Tensor:
        first, *others = (mean_of_map(x) for x in maps)
        scores = self.select(self.squeeze(sum(others, first)))
        return weighted_sum(maps, scores.unflatten(1, (self.blocks, -1)).softmax(dim=1))
