"""A network that starts by its own rule: its weights are of the seed, whatever gates it has."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.network import Network, Places
from attention_ablation.networks.record import BACKBONES, Backbone

CBAM = Attention(pooling="avg&max", descriptor="pool", reduction=2)


@dataclass(frozen=True)
class Own(Network):
    """Two convolutions that start at 0.5 times uniform weights, with a gate between them."""

    family = "own"
    own_init = True
    convolutions = 2

    def narrowest(self, width: float) -> int:
        return 8

    def places(self, width: float) -> Places:
        return {"block-end": [8]}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        layers = [nn.Conv2d(3, 8, 3), *gates.at("block-end"), nn.Conv2d(8, classes, image_size)]
        for layer in (layers[0], layers[2]):
            nn.init.uniform_(layer.weight, 0.25, 0.5)
        return nn.Sequential(*layers)


def test_it_keeps_its_own_weights_of_the_seed_and_gates_get_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(BACKBONES, "own", Own())
    made = {}
    for name, attention, seed in (
        *(("plain", Attention(), 0), ("again", Attention(), 0), ("other", Attention(), 1)),
        *(("gated", CBAM, 0), ("eca", Attention(gate="eca"), 0)),
    ):
        model = build(Backbone(name="own"), attention, 10, image_size=30)
        initialise(model, seed)
        made[name] = model.state_dict()
    assert made["plain"]["2.weight"].shape == (10, 8, 30, 30)
    for name in ("0.weight", "0.bias", "2.weight"):
        assert torch.equal(made["plain"][name], made["again"][name])
        assert torch.equal(made["plain"][name], made["gated"][name])
        assert torch.equal(made["plain"][name], made["eca"][name])
    assert made["plain"]["0.weight"].min() >= 0.25
    assert not torch.equal(made["plain"]["0.weight"], made["other"]["0.weight"])
    # CBAM's own rule: biases are 0, the weight of the last BatchNorm, too.
    assert not made["gated"]["1.0.attention.mlp.0.bias"].any()
    assert not made["gated"]["1.1.attention.norm.weight"].any()
