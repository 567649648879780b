"""CAT: channel and spatial attention from mean, maximum and entropy, added in learned shares."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_ablation.gates.parts import hidden_units, largest, largest_of_map

SIGMA = 1.0  # of the 5x5 Gaussian blur


class CAT(nn.Module):
    """Collaborating attentions: out = g (w_1 A + w_2 S) x, with w = softmax of two scalars.

    A = sigmoid(a_1 m(mean x) + a_2 m(max xb) + a_3 m(entropy x)) over the places of each channel,
    where m is an MLP C -> C / r -> C without biases, shared. S = sigmoid(conv7x7(b_1 mean x +
    b_2 max xb + b_3 entropy x)) over the channels at each place. xb is x blurred, with zeros beyond
    its edges, so that a maximum is not a single outlier; the entropy is of a softmax and is scaled
    to [0, 1], see `entropy`. All scalars start at 0, so that the gate starts as exactly g / 2; g is
    1, and 2 for a start as the identity.
    A reading: there is no code, and what the paper leaves open, such as the edges, is ours.
    Shape: (N, C, H, W) -> the same. Raises ValueError for a reduction above C.
    """

    blur: Tensor

    label = "reading"
    paper = "CAT, Wu et al. 2022, arXiv:2212.06335"

    def __init__(self, channels: int, *, reduction: int = 16, gain: int = 1) -> None:
        super().__init__()
        hidden = hidden_units(channels, reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
        )
        self.conv = nn.Conv2d(1, 1, 7, padding=3, bias=False)
        self.a = nn.Parameter(torch.zeros(3))  # of mean, maximum, entropy
        self.b = nn.Parameter(torch.zeros(3))
        self.shares = nn.Parameter(torch.zeros(2))  # of channel and spatial attention
        self.register_buffer("blur", gaussian().repeat(channels, 1, 1, 1), persistent=False)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        blurred = F.conv2d(x, self.blur, padding=2, groups=x.shape[1])
        places = x.flatten(2)
        traits = [places.mean(2), largest_of_map(blurred), entropy(places, 2)]
        channel = (self.a[:, None, None] * self.mlp(torch.stack(traits))).sum(0)  # (N, C)
        mean, most = x.mean(dim=1), largest(blurred, 1).squeeze(1)
        spatial = self.b[0] * mean + self.b[1] * most + self.b[2] * entropy(x, 1)  # (N, H, W)
        shares = self.gain * self.shares.softmax(0)
        by_channel = shares[0] * channel.sigmoid()[:, :, None, None]
        by_place = shares[1] * self.conv(spatial[:, None]).sigmoid()
        # Cast before they are broadcast, so that no map of single precision is kept.
        weights: Tensor = by_channel.to(x.dtype) + by_place.to(x.dtype)
        return x * weights


def gaussian() -> Tensor:
    """Return the 5x5 Gaussian kernel, whose sum is 1."""
    line = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / (2 * SIGMA**2))
    return torch.outer(line, line) / line.sum() ** 2


def entropy(x: Tensor, dim: int) -> Tensor:
    """Return the entropy of a softmax over `dim`, scaled to [0, 1] within each image.

    The least entropy of the image becomes 0 and the largest 1; where all are equal, all are 0.
    Shape: (N, ..., n, ...) -> without n. In single precision, in which p log p is finite.
    """
    logs = x.float().log_softmax(dim)
    raw = -(logs.exp() * logs).sum(dim)
    rest = tuple(range(1, raw.ndim))
    low, high = raw.amin(rest, keepdim=True), raw.amax(rest, keepdim=True)
    return (raw - low) / (high - low).clamp_min(1e-6)  # equal ones would be 0 / 0
