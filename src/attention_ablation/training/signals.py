"""A signal to stop, noted until the training comes to a step at which it can."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attention_ablation.feed.workers import STOPS


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
