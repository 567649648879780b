"""Processes that read images for a training, and end with it, however it ends.

A signal to stop, which often goes to every process of a job, is the training's alone: it asks its
workers for the batch under way. So they block what would end them, and are killed instead.
"""

import mmap
import os
import signal
import time
import traceback
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import popen_fork
from multiprocessing.context import ForkContext, ForkProcess
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from attention_ablation.base.errors import UserError
from attention_ablation.base.signals import STOPS, end_with
from attention_ablation.feed.order import Key

I = TypeVar("I")  # noqa: E741  (an item)
B = TypeVar("B")  # a batch


class Reader(Dataset[Any], Generic[B]):
    """Reads and collates the items of keys, in worker processes that stay for the next call.

    To torch it is both the data set and the sampler of its batches.
    """

    def __init__(
        self,
        read: Callable[[Key], I],
        name: Callable[[Key], object],
        collate: Callable[[list[I]], B],
        workers: int = 0,
        *,
        pin_memory: bool = False,
    ) -> None:
        """name: what a sentence about a key's item calls it. workers: 0: this process reads."""
        self.workers = workers
        self._read, self._name, self._collate = read, name, collate
        self._pin_memory = pin_memory
        self._keys: Iterator[list[Key]]
        self._loaders: list[DataLoader[Any]] = []  # none or one
        self._under_way: list[Generator[B, None, None]] = []
        # Also at the process's end, which would wait for workers that ignore signals.
        weakref.finalize(self, _end, self._under_way, self._loaders)

    def batches(self, keys: Iterable[list[Key]]) -> Iterator[B]:
        """Return a batch for each list of keys; what is left of an earlier call is thrown away.

        Raises UserError that names an item that cannot be read.
        """
        self._under_way[:] = [self._batches(iter(keys))]
        return self._under_way[0]

    def _batches(self, keys: Iterator[list[Key]]) -> Generator[B, None, None]:
        self._keys = keys
        if not self._loaders:
            self._loaders.append(worker_loader(self, self, self.workers, self._pin_memory))
        for batch in self._loaders[0]:
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch

    def __iter__(self) -> Iterator[list[Key]]:
        return self._keys

    def __getitems__(self, keys: list[Key]) -> B | str:
        """Return a batch, or a sentence about an item that cannot be read.

        An error raised in a worker would come without the file's name. The traceback of one that
        says nothing to a user is printed.
        """
        found = []
        for key in keys:
            try:
                found.append(self._read(key))
            except UserError as error:
                return str(error)
            except MemoryError:
                return f"{self._name(key)}: memory does not suffice to read it; give the job more."
            except Exception as error:
                traceback.print_exc()
                reason = f"reading it failed with {type(error).__name__}: {error}".rstrip(" :.")
                return f"{self._name(key)}: {reason}; the log has the traceback."
        return self._collate(found)

    def close(self) -> None:
        """End the workers. They start again when they are needed."""
        _end(self._under_way, self._loaders)


def _end(under_way: list[Generator[B, None, None]], loaders: list[DataLoader[Any]]) -> None:
    for batches in under_way:
        batches.close()
    under_way.clear()
    loaders.clear()  # with a loader its workers end


def worker_loader(
    dataset: Dataset[Any], asked: Iterable[list[Any]], workers: int, pin_memory: bool = False
) -> DataLoader[Any]:
    """Return a loader of what `dataset.__getitems__` gives for each list of keys in `asked`.

    workers: processes, which stay for the next pass through `asked`; 0: this one reads by itself.
    """
    return DataLoader(
        dataset,
        batch_sampler=asked,
        collate_fn=lambda batch: batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=partial(_begin, os.getpid()),
        multiprocessing_context=_Context() if workers else None,
        generator=torch.Generator(),  # the global one is the training's
    )


@contextmanager
def deaths_as_errors() -> Iterator[None]:
    """Raise UserError where a worker was killed, of which torch or a broken connection tells."""
    _started.clear()  # those of a training before
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, EOFError | OSError):
            # The connection breaks before the process has ended, of which torch's signal handler
            # may tell meanwhile.
            with suppress(RuntimeError):
                time.sleep(0.5)
        if any(worker.was_killed for worker in _started):
            raise UserError(
                "A process that reads images was killed. If memory ran out, give the job more or "
                "fewer --workers; then start it again, it resumes."
            ) from error
        raise


def _begin(parent: int, _: int) -> None:
    # Also one that waits for a file ends with its parent, whose locks it has inherited.
    end_with(parent, signal.SIGKILL)


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
        return self.exitcode not in (None, 0) and not self._popen.ended_here  # type: ignore[attr-defined]

    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:  # noqa: N802  (multiprocessing's name)
        return _Popen(process_obj)


_started: weakref.WeakSet[_Process] = weakref.WeakSet()


class _Context(ForkContext):
    """Forks processes that are killed where torch or multiprocessing would terminate them."""

    Process = _Process
    Event = _Flag  # type: ignore[assignment]
