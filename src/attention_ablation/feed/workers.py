"""Processes that read images for a training, and end with it, however it ends.

A signal to stop, which often goes to every process of a job, is the training's alone: it asks its
workers for the batch under way. So they block what would end them, and are killed instead.
"""

import ctypes
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import popen_fork
from multiprocessing.context import ForkContext, ForkProcess
from typing import Any
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader, Dataset

from attention_ablation.base.errors import UserError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def worker_loader(
    dataset: Dataset[Any],
    asked: Iterable[list[Any]],
    collate: Callable[[Any], Any],
    workers: int,
    *,
    stay: bool = False,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Return a loader of the batches that are `asked` for, lists of the dataset's keys.

    Args:
        workers: processes; 0: this one reads by itself.
        stay: the workers stay for the next pass through `asked`.
    """
    return DataLoader(
        dataset,
        batch_sampler=asked,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=stay and workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=partial(_begin, os.getpid()),
        multiprocessing_context=_Context() if workers else None,
        generator=torch.Generator(),  # the global one is the training's
    )


@contextmanager
def deaths_as_errors() -> Iterator[None]:
    """Raise UserError where a worker was killed, of which torch or a broken connection tells.

    torch tells of it once, from a handler of SIGCHLD, in the middle of anything.
    """
    _started.clear()  # those of a training before
    try:
        try:
            yield
        except (EOFError, OSError):
            time.sleep(0.5)  # the connection breaks before the process has ended
            raise
    except UserError:
        raise
    except Exception as error:
        if any(worker.was_killed for worker in _started):
            raise UserError(
                "A process that reads images was killed. If memory ran out, give the job more or "
                "fewer --workers; then start it again, it resumes."
            ) from error
        raise


def _begin(parent: int, _: int) -> None:
    # Also one that waits for a file ends with its parent, whose locks it has inherited.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before that
        os._exit(1)


class _Flag:
    """An event for forked processes without a lock, which a killed one would hold for ever."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._shared[0] = 1

    def is_set(self) -> bool:
        return self._shared[0] == 1


class _Popen(popen_fork.Popen):
    ended_here = False  # by torch, where one does not end in time

    def terminate(self) -> None:
        self.kill()

    def kill(self) -> None:
        self.ended_here = self.ended_here or self.poll() is None
        super().kill()


class _Process(ForkProcess):
    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # it begins with these blocked
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _started.add(self)

    @property
    def was_killed(self) -> bool:
        """Whether it ended otherwise than by itself or by this process."""
        return self.exitcode not in (None, 0) and not self._popen.ended_here  # type: ignore[attr-defined]

    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:  # noqa: N802  (multiprocessing's name)
        return _Popen(process_obj)


_started: WeakSet[_Process] = WeakSet()


class _Context(ForkContext):
    """Forks processes that are killed where torch or multiprocessing would terminate them."""

    Process = _Process
    Event = _Flag  # type: ignore[assignment]
