"""Files in the data folder that save work: used where they are sound, made again where not."""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing

LOCK = ".lock"  # of a data folder
T = TypeVar("T")


def keep(path: Path, read: Callable[[], T], make: Callable[[], T]) -> T:
    """Return what `read` finds in a file, or what `make` has written there instead.

    Of several processes one makes it, and the others then read it. `read` raises Missing where
    there is nothing to read, and UserError where the file is damaged, which is said on stderr.

    Raises UserError where the folder cannot be written.
    """
    with suppress(UserError):
        return read()
    with _alone(path.parent):
        try:
            return read()
        except Missing:
            pass
        except UserError as damage:
            print(f"warning: {damage} It is made again.", file=sys.stderr, flush=True)
        return make()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes a file in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder that can be written, got: {error.strerror}."
        ) from None
    try:
        with suppress(OSError):  # where files cannot be locked, several may make it
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
