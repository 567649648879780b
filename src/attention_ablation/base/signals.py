"""Signals: those that stop a training, and one at the end of a parent."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Slurm sends SIGTERM, Grid Engine the last two, a terminal SIGINT.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int, by: signal.Signals) -> None:
    """Let this forked process get a signal when its parent has ended, however it does."""
    from ctypes import CDLL  # not above: the help of the command waits for this module

    CDLL(None).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # it was gone before that
        os._exit(1)


@contextmanager
def stop_signal() -> Iterator[Callable[[], int | None]]:
    """Note a signal of STOPS instead of dying of it; the value says which came."""
    received: list[int] = []
    before = [signal.signal(name, lambda number, _: received.append(number)) for name in STOPS]
    try:
        yield lambda: received[0] if received else None
    finally:
        for name, handler in zip(STOPS, before, strict=True):
            signal.signal(name, handler)
