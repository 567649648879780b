"""What a check of a user's code found, whatever that code does."""

import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from attention_ablation.base.errors import UserError
from attention_ablation.gates.own import brief


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


def result(name: str, check: Callable[[], str]) -> Result:
    """Return what a check says. Only a signal from outside ends the program."""
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about its own insides
            return Result(name, True, check())
    except CtrlC:
        raise
    except (Failed, UserError) as error:
        return Result(name, False, str(error))
    except BaseException as error:  # of the user's code, which may call sys.exit
        return Result(name, False, f"it fails: {brief(error)}. Mend that in the class.")
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(*_: object) -> NoReturn:
    raise CtrlC
