"""Histories as curves of an experiment tracker, written from the runs' folders."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from attention_ablation.base.errors import UserError
from attention_ablation.runs.follow import Rows, new_rows
from attention_ablation.runs.records import NUMBERS
from attention_ablation.study.expand import Plan


class Tracker(Protocol):
    """What shows curves. A run has its path for a name, so that a second export replaces it."""

    def write(self, found: Rows) -> None: ...


class TensorBoard:
    """An event file for each run, in a folder named as the run's."""

    def __init__(self, folder: str) -> None:
        _required("tensorboard")
        self._folder, self._writers = Path(folder), dict[str, Any]()

    def write(self, found: Rows) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder / found.run
        try:
            if found.anew:
                self._close(found.run)
                for old in folder.glob("events.out.tfevents.*"):
                    old.unlink()
            if found.run not in self._writers:
                self._writers[found.run] = SummaryWriter(folder)
            writer = self._writers[found.run]
            for epoch, numbers in _numbers(found):
                for name, value in numbers.items():
                    writer.add_scalar(name, value, epoch)
            writer.flush()
        except OSError as error:
            raise UserError(f"{folder}: it cannot be written: {error.strerror}.") from None
        if found.last:
            self._close(found.run)

    def _close(self, run: str) -> None:
        if writer := self._writers.pop(run, None):
            writer.close()


class Trackio:
    """Runs of a Trackio project, in the folder that Trackio is set up for; its own is the user's.

    Trackio has one run open at a time.
    """

    def __init__(self, project: str) -> None:
        self._trackio, self._project = _required("trackio"), project

    def write(self, found: Rows) -> None:
        with redirect_stdout(io.StringIO()):  # four lines for every run
            with suppress(ValueError):  # there is no such project yet
                for old in self._trackio.Api().runs(self._project) if found.anew else ():
                    if old.name == found.run:
                        old.delete()
            run = self._trackio.init(
                self._project, found.run, resume="allow", embed=False, auto_log_gpu=False,
                auto_log_cpu=False,
            )  # fmt: skip
            for epoch, numbers in _numbers(found):
                run.log(numbers, step=epoch)
            run.finish()


TRACKERS: dict[str, Callable[[str], Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio}


def write_curves(plan: Plan, tracker: Tracker, follow: bool) -> Iterator[str]:
    """Write the rows of the plan's runs, and say of which as it goes on."""
    for found in new_rows(plan, follow):
        tracker.write(found)
        yield f"{found.run}: epoch {found.rows[-1]['epoch']:.0f}"


def _numbers(found: Rows) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each epoch and its numbers, such as validation/top1_error; what is not finite is not.

    Trackers group what has the same word before the slash.
    """
    for row in found.rows:
        yield (
            int(row["epoch"]),
            {
                name.replace("_", "/", 1) if name.startswith(NUMBERS) else name: value
                for name, value in row.items()
                if name != "epoch" and math.isfinite(value)
            },
        )


def _required(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise UserError(
            f"expected the package {package}, which is not installed; it is the extra of that "
            f"name: pip install --editable '.[{package}]'."
        ) from None
