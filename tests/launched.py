"""The command-line interface for torchrun to start, with a change that the environment asks for.

NO_NORM: scale channels where BatchNorm would normalise them. When that many steps are done, process
1 alone: STOP_AT, sends itself SIGTERM; STOP_LAUNCHER_AT, sends it to torchrun; FAIL_AT, raises an
error; KILL_AT, is gone. STOP_IN_EVALUATION: it sends itself SIGTERM in its first evaluation, of
that many images a batch. FAIL_IN_WORKER: its workers fail after as many images.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from attention_ablation.cli.main import script
from attention_ablation.datasets.reading import decode
from attention_ablation.datasets.reading.decode import read_image
from attention_ablation.feed import batches
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


def at(last: int, happens: Callable[[], object]) -> None:
    """Let something happen to process 1 when `last` steps are done."""
    plain = Loop._step

    def interrupted(loop: Loop, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        plain(loop, batch)
        if loop.step == last and loop.processes.rank == 1:
            happens()

    Loop._step = interrupted


def signal_launcher() -> None:
    """Tell torchrun to stop, and wait until it has told this process."""
    met = []
    plain = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *told: met.append(plain(*told)))
    os.kill(os.getppid(), signal.SIGTERM)
    while not met:  # pause() would miss a signal that came before it
        time.sleep(0.01)


def fail() -> None:
    """Fail for a reason of this process's own."""
    raise ValueError("process 1 broke")


def stop_in_evaluation(images: int) -> None:
    """Let process 1 send itself a signal when its first evaluation begins."""
    plain = Loop._evaluate
    batches.EVALUATION_BATCH = images

    def interrupted(loop: Loop, asked_to_stop: Callable[[], bool]) -> Mapping[str, float]:
        if loop.processes.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(loop, asked_to_stop)

    Loop._evaluate = interrupted


def fail_in_worker(images: int) -> None:
    """Let a worker of process 1 fail when it has read so many images."""
    read = []

    def failing(path: Path) -> torch.Tensor:
        read.append(path)
        if len(read) > images and os.environ["RANK"] == "1":
            raise Exception("odd pixels")
        return read_image(path)

    patch.object(decode, "read_image", failing).start()


HAPPENS = {
    "STOP_AT": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "STOP_LAUNCHER_AT": signal_launcher,
    "FAIL_AT": fail,
    "KILL_AT": lambda: os.kill(os.getpid(), signal.SIGKILL),
}

if __name__ == "__main__":
    if "NO_NORM" in os.environ:
        nn.BatchNorm2d = Scale
    for name, happens in HAPPENS.items():
        if name in os.environ:
            at(int(os.environ[name]), happens)
    if "STOP_IN_EVALUATION" in os.environ:
        stop_in_evaluation(int(os.environ["STOP_IN_EVALUATION"]))
    if "FAIL_IN_WORKER" in os.environ:
        fail_in_worker(int(os.environ["FAIL_IN_WORKER"]))
    script()
