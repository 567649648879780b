"""Batches of images that are read one by one, by worker processes or by this one."""

import traceback
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from attention_ablation.base.errors import UserError
from attention_ablation.feed.order import Key
from attention_ablation.feed.workers import worker_loader

I = TypeVar("I")  # noqa: E741  (an item)
B = TypeVar("B")  # a batch


class Reader(Generic[B]):
    """Reads and collates the items of keys, in worker processes that stay for the next call."""

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
        self._pin_memory = pin_memory
        self._items = _Items(read, name, collate)
        self._asked = _Asked()
        self._loaders: list[DataLoader[Any]] = []  # none or one
        self._under_way: list[Generator[B, None, None]] = []
        # Also at the process's end, which would wait for workers that ignore signals.
        weakref.finalize(self, _end, self._under_way, self._loaders)

    def batches(self, keys: Iterable[list[Key]]) -> Iterator[B]:
        """Return a batch for each list of keys; what is left of an earlier call is thrown away.

        Raises UserError, naming it, for an item that cannot be read.
        """
        self._under_way[:] = [self._batches(iter(keys))]
        return self._under_way[0]

    def _batches(self, keys: Iterator[list[Key]]) -> Generator[B, None, None]:
        self._asked.keys = keys
        if not self._loaders:
            self._loaders.append(
                worker_loader(
                    self._items,
                    self._asked,
                    _as_it_is,
                    self.workers,
                    stay=True,
                    pin_memory=self._pin_memory,
                )
            )
        for batch in self._loaders[0]:
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch

    def close(self) -> None:
        """End the workers. They start again when they are needed."""
        _end(self._under_way, self._loaders)


class _Items(Dataset[Any]):
    """The batches of lists of keys, or a sentence about an item that cannot be read.

    An error raised in a worker would come without the file's name. The traceback of one that says
    nothing to a user is printed.
    """

    def __init__(self, read: Callable[[Key], Any], name: Any, collate: Any) -> None:
        self.read, self.name, self.collate = read, name, collate

    def __getitems__(self, keys: list[Key]) -> Any:
        found = []
        for key in keys:
            try:
                found.append(self.read(key))
            except UserError as error:
                return str(error)
            except MemoryError:
                return f"{self.name(key)}: memory does not suffice to read it; give the job more."
            except Exception as error:
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}".rstrip(" :.")
                return (
                    f"{self.name(key)}: reading it failed with {reason}; the log has the traceback."
                )
        return self.collate(found)


class _Asked:
    """The keys that a reader was last asked for, as the loader's sampler."""

    keys: Iterator[list[Key]]

    def __iter__(self) -> Iterator[list[Key]]:
        return self.keys


def _as_it_is(batch: Any) -> Any:
    return batch


def _end(under_way: list[Generator[B, None, None]], loaders: list[DataLoader[Any]]) -> None:
    for batches in under_way:
        batches.close()
    under_way.clear()
    loaders.clear()  # with a loader its workers end
