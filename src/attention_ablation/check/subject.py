"""A gate to check, and the maps that its place gives it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attention_ablation.gates.build import Maps, build_gate
from attention_ablation.gates.record import Attention
from attention_ablation.gates.source import Channels

BATCH = 3
BLOCKS = 3  # of a stage
Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class Subject:
    """The gate that is checked, and the numbers of channels to check it with."""

    attention: Attention
    channels: Sequence[int]
    device: torch.device

    @property
    def variants(self) -> list[Channels]:
        """What the gate is made with; inside a block that of two convolutions and of three."""
        if self.attention.position == "over-stage":
            return [[c] * BLOCKS for c in self.channels]
        if self.attention.position != "inside-block":
            return list(self.channels)
        return [form for c in self.channels for form in ([c, c], [max(1, c // 4)] * 2 + [c])]

    @property
    def usual(self) -> Channels:
        """What it is made with for the checks that need one only."""
        return min(self.variants, key=lambda c: abs((c if isinstance(c, int) else c[-1]) - 64))

    def gate(self, channels: Channels, seed: int = 0) -> nn.Module:
        """Return the gate, its initial weights drawn from `seed`."""
        torch.manual_seed(seed)
        return build_gate(self.attention, channels).to(self.device)

    def trained(self) -> nn.Module:
        """Return the usual gate in evaluation after two steps: no weight is where it started."""
        gate = self.gate(self.usual).train()
        parameters = list(gate.parameters())
        for _ in range(2):
            gate.zero_grad()
            out = gate(self.maps())
            if parameters:
                (out * torch.randn_like(out)).sum().backward()
            with torch.no_grad():
                for parameter in parameters:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return gate.eval()

    def maps(self, channels: Channels | None = None, size: Size = (9, 14)) -> Maps:
        """Return random maps as the place gives them; of the usual channels where none are said."""
        shapes = self.shapes(channels or self.usual, BATCH, size)
        maps: Maps = each(shapes, lambda shape: torch.randn(*shape, device=self.device))
        return maps

    def shapes(self, channels: Channels, batch: int, size: Size) -> Any:
        """Return the shape of the map that the place gives, a list where it gives several."""
        if isinstance(channels, int):
            return (batch, channels, *size)
        # The first map of a bottleneck is larger where its second convolution strides.
        strides = self.attention.position == "inside-block" and len(channels) > 2
        larger = (2 * size[0], 2 * size[1]) if strides else size
        return [(batch, c, *(size if i else larger)) for i, c in enumerate(channels)]


def each(maps: Any, change: Callable[[Any], Any]) -> Any:
    """Return what `change` makes of a map, or of each in a list."""
    return [change(x) for x in maps] if isinstance(maps, list) else change(maps)


def listed(maps: Maps) -> list[Tensor]:
    return maps if isinstance(maps, list) else [maps]
