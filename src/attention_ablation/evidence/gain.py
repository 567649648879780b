"""The gain that a gate starts with: what it makes of its map before anything is learned."""

from functools import cache

from attention_ablation.gates.record import Attention
from attention_ablation.gates.source import Channels
from attention_ablation.networks.record import Backbone

IMAGES, SIDE = 16, 14  # of the noise


def starting_gain(backbone: Backbone, attention: Attention) -> float:
    """Return <F, gate(F)> / <F, F>, the mean over the gates of an untrained network.

    F is standard normal noise, (16, C, 14, 14), and the last one where a gate gets several maps. A
    sigmoid starts at 1/2, CBAM's two at 1/4; without a gate it is 1.
    """
    if attention == Attention():
        return 1.0
    places = backbone.network.gated_channels(backbone.width, attention.position)
    gains = [_gain(attention, tuple(c) if isinstance(c, list) else c) for c in places]
    return sum(gains) / len(gains)


@cache
def _gain(attention: Attention, channels: int | tuple[int, ...]) -> float:
    import torch
    from torch import nn

    from attention_ablation.gates.build import build_gate
    from attention_ablation.networks.build import initialise

    given: Channels = list(channels) if isinstance(channels, tuple) else channels
    network = nn.ModuleDict({"gate": build_gate(attention, given)})
    initialise(network, 0)
    generator = torch.Generator().manual_seed(0)
    sizes = given if isinstance(given, list) else [given]
    maps = [torch.randn(IMAGES, c, SIDE, SIDE, generator=generator) for c in sizes]
    with torch.no_grad():
        out = network["gate"](maps if isinstance(given, list) else maps[-1])
    return float((maps[-1] * out).sum() / maps[-1].square().sum())
