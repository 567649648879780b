"""GC: a context of the whole map, weighted by attention over its places, added to each place."""

from torch import Tensor, nn

from attention_ablation.gates.parts import hidden_units


class GC(nn.Module):
    """F -> F + W2 relu(LN(W1 c)), c = sum over places of softmax(Wk F) * F (Fig. 4d).

    Shape: (N, C, H, W) -> the same. It starts as the identity: W2 and its bias start at 0, and Wk
    as in the authors' code, Kaiming normal, fan-in. Raises ValueError for a reduction above the
    channels.
    """

    label = "exact"
    paper = "GCNet, Cao et al. 2019, arXiv:1904.11492"

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = hidden_units(channels, reduction)
        self.key = nn.Conv2d(channels, 1, 1)
        self.down = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, channels)
        nn.init.kaiming_normal_(self.key.weight)
        for zero in (self.key.get_parameter("bias"), self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        places = self.key(x).flatten(1).softmax(dim=1)  # (N, HW)
        # In this order the gradient of x has its channels last in memory, as x has in trainings.
        context = places[:, None].to(x.dtype) @ x.flatten(2).mT  # (N, 1, C)
        added: Tensor = self.up(self.norm(self.down(context.squeeze(1))).relu())
        return x + added[:, :, None, None].to(x.dtype)
