"""Gates of the package for tests, as they start and as if trained."""

from typing import Any

import torch
from torch import nn

from attention_ablation.gates.build import build_gate
from attention_ablation.gates.record import Attention


def fresh(gate: str, channels: int = 64, start: str = "half", **options: Any) -> nn.Module:
    """Return a gate as it starts."""
    entry = {"gate": gate, "options": options} | ({"start": start} if start != "half" else {})
    torch.manual_seed(0)
    made: Any = build_gate(Attention.model_validate(entry), channels)
    found: nn.Module = made.gate.eval()
    return found


def trained(gate: str, channels: int = 64, **options: Any) -> nn.Module:
    """Return a gate in evaluation, all its weights and statistics away from their start."""
    made = fresh(gate, channels, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
        for name, buffer in made.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return made
