"""The command-line interface for torchrun to start, with a change that the environment asks for.

NO_NORM: scale channels where BatchNorm would normalise them. STOP_AT: process 1 alone sends itself
SIGTERM when that many steps are done.
"""

import os
import signal

import torch
from torch import nn

from attention_ablation.cli import script
from attention_ablation.training.loop import Loop


class Scale(nn.Module):
    """Stands in for BatchNorm2d: (N, C, H, W) -> the same, each image apart from the others."""

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = channels
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift each channel."""
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def stop_at(last: int) -> None:
    """Send process 1 SIGTERM when `last` steps are done."""
    plain = Loop._step

    def interrupted(loop: Loop, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        plain(loop, batch)
        if loop.step == last and loop.processes.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    Loop._step = interrupted


if __name__ == "__main__":
    if "NO_NORM" in os.environ:
        nn.BatchNorm2d = Scale
    if "STOP_AT" in os.environ:
        stop_at(int(os.environ["STOP_AT"]))
    script()
