"""A run's `.lock`: locked while a process trains the run; the file says which one.

It is empty where that process let go of it, as after an error or where it stopped for a signal. A
number that is left in a file that nobody locks is that of a process that was ended from outside.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from attention_ablation.base.errors import UserError

LOCK = ".lock"
POLL_SECONDS = 0.5
# Not through a link, and without waiting for whoever else may have opened a pipe of that name.
PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK

_locked: set[int] = set()  # descriptors of this process


def _let_go() -> None:
    # A worker that outlives its killed trainer would otherwise keep the run locked.
    for descriptor in _locked:
        os.close(descriptor)
    _locked.clear()


os.register_at_fork(after_in_child=_let_go)


@dataclass(frozen=True)
class Lock:
    """What a run's lock says: the process that trains the run, or that was ended from outside."""

    holder: str | None = None
    lost: str | None = None


@contextmanager
def lock_run(folder: Path, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Lock a run's folder against a second process; the lock dies with this one.

    `meanwhile` is called twice a second while another process has it. Raises UserError where the
    file system has no locks or the file cannot be written.
    """
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | PLAIN, 0o666)
    except OSError as error:
        raise UserError(f"{path}: it cannot be written: {error.strerror}.") from None
    _locked.add(descriptor)
    try:
        _wait(descriptor, path, meanwhile)
        _write(descriptor, f"process {os.getpid()}\n")
        try:
            yield
        finally:
            if descriptor in _locked:  # not in a fork
                _write(descriptor, "")
    finally:
        if descriptor in _locked:
            _locked.remove(descriptor)
            os.close(descriptor)


def read_lock(folder: Path) -> Lock:
    """Return who trains a run, or began to and was ended; nothing is known without the file."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | PLAIN)
    except OSError:
        return Lock()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return Lock(lost=_read(descriptor) or None)  # after that: its holder emptied it before
    except BlockingIOError:
        return Lock(holder=_read(descriptor) or "another process")
    except OSError:  # a file system without locks, on which nothing is trained
        return Lock()
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, meanwhile: Callable[[], object]) -> None:
    said = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not said:
                text = f"{path.parent} is being trained by another process; waiting for it."
                print(text, flush=True)
                said = True
            meanwhile()
            time.sleep(POLL_SECONDS)
        except OSError as error:
            raise UserError(
                f"{path}: this file system cannot lock files ({error.strerror}), so two jobs "
                "could train one run; put `results` in config.yaml on one that can."
            ) from None


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 100, 0).decode(errors="replace").strip()


def _write(descriptor: int, text: str) -> None:
    with suppress(OSError):  # of a full disk: it is for people to read
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
