"""A gate: attention applied to a feature map, alone or in one of Table 3's arrangements."""

from torch import Tensor, nn

from attention_ablation.gates.channel import ChannelAttention
from attention_ablation.gates.own import OwnGate
from attention_ablation.gates.record import Attention
from attention_ablation.gates.spatial import SpatialAttention


class Gate(nn.Module):
    """One attention, applied: F -> sigmoid(A(F)) * F. Shape: (N, C, H, W) -> the same."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` weighted by its attention."""
        weights: Tensor = self.attention(x).sigmoid()
        # In this order the product keeps the memory layout of x. Autocast makes the sum over pools,
        # and so the weights, single precision, which the product would hand on to all that follows.
        return x * weights.to(x.dtype)


class ParallelGate(nn.Module):
    """Both attentions see F; one sigmoid normalises their sum: F -> sigmoid(Ac(F) + As(F)) * F.

    The raw outputs, (N, C, 1, 1) and (N, 1, H, W), are broadcast to a 3-D map for each image
    (section 4.1, 'Arrangement'). Shape: (N, C, H, W) -> the same.
    """

    def __init__(self, channel: nn.Module, spatial: nn.Module) -> None:
        super().__init__()
        self.channel = channel
        self.spatial = spatial

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` weighted by its attention."""
        # Cast before they are broadcast, so that no map of single precision is kept.
        raw: Tensor = self.channel(x).to(x.dtype) + self.spatial(x).to(x.dtype)
        return x * raw.sigmoid()


def build_gate(attention: Attention, channels: int) -> nn.Module:
    """Return the gate that `attention` describes, for maps of `channels` channels.

    CBAM is channel-first: F' = Mc(F) * F, F'' = Ms(F') * F' (equation 1). No attention at all
    gives the identity, which has no parameters. Raises ValueError as the gates' parts do, and
    UserError where a user's own gate cannot be made.
    """
    if attention.module:
        return OwnGate(attention, channels)
    channel = spatial = None
    if attention.pooling:
        assert attention.reduction is not None
        channel = ChannelAttention(
            channels, pooling=attention.pooling, reduction=attention.reduction
        )
    if attention.descriptor:
        assert attention.kernel is not None
        spatial = SpatialAttention(
            channels,
            descriptor=attention.descriptor,
            kernel=attention.kernel,
            norm=bool(attention.norm),
        )
    if channel and spatial and attention.arrangement == "parallel":
        return ParallelGate(channel, spatial)
    gates = [Gate(part) for part in (channel, spatial) if part]
    if attention.arrangement == "spatial-first":
        gates.reverse()
    return nn.Sequential(*gates) if gates else nn.Identity()
