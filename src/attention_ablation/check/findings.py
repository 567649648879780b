"""What a check of a user's code found, whatever that code does."""

import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from attention_ablation.base.errors import UserError, brief


class Failed(Exception):  # noqa: N818  (a finding, not an error of the program)
    """What is wrong with a gate, and what to do about it."""


@dataclass(frozen=True)
class Result:
    """A check with what it looked at, or with what is wrong and what to do."""

    name: str
    ok: bool
    text: str


class CtrlC(KeyboardInterrupt):
    """The user's, not one that the checked code raises."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Make a SIGINT CtrlC."""

    def interrupt(*_: object) -> NoReturn:
        raise CtrlC

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def result(name: str, check: Callable[[], str]) -> Result:
    """Return what a check says, or what the code under it raises: CtrlC alone ends the program."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's about its own insides
            return Result(name, True, check())
    except CtrlC:
        raise
    except (Failed, UserError) as error:
        return Result(name, False, str(error))
    except BaseException as error:  # the user's code may call sys.exit
        return Result(name, False, f"it fails: {brief(error)}. Mend that in the class.")


def require(holds: object, advice: str) -> None:
    """Raise Failed with the advice where something does not hold."""
    if not holds:
        raise Failed(advice)


@contextmanager
def failing(advice: str) -> Iterator[None]:
    """Turn an exception within into Failed; '{}' in the advice is the exception."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise Failed(advice.format(brief(error))) from error
