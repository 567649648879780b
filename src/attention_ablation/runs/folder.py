"""A run's folder: which files are there, who writes them, and how they are read back.

What they hold is in records.py; `.lock` is in lock.py.
"""

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, read_json, read_text, write_json, write_text
from attention_ablation.base.model import Model, one_line
from attention_ablation.runs.lock import read_lock
from attention_ablation.runs.records import Failure, GradCam, Metrics, Result
from attention_ablation.spec.spec import Run
from attention_ablation.study.files import parse

# The workflow writes what to do, what was printed, and, where detectors or classifiers behind a
# front-end start from the final weights, a copy of them, declared to Snakemake and so kept apart.
SPEC, LOG, BACKBONE = "spec.json", "train.log", "backbone.pt"
# A training writes a row per epoch, and what came out, whose presence means that the run ended by
# itself; both once more in a file that Snakemake does not know and so never deletes; or why it
# failed; the final weights; and what a detector finds in a few validation images.
HISTORY, METRICS, RESULT, FAILURE = "history.csv", "metrics.json", "result.json", "failure.json"
WEIGHTS, DETECTIONS = "weights.pt", "detections.npz"
WRITTEN = (HISTORY, METRICS, RESULT, FAILURE, WEIGHTS, DETECTIONS)
# While it is under way, checkpoints, of a step and with a digest, begun under one name.
CHECKPOINT = re.compile(r"checkpoint-(\d{9})-[0-9a-f]{16}\.pt")
PART = "checkpoint.part"
# Grad-CAM writes where the network looks: means, a row per image, maps.
GRADCAM, GRADCAM_IMAGES, GRADCAM_MAPS = "gradcam.json", "gradcam.csv", "gradcam.npz"
# Beginnings of what others than a training begin beside.
OF_OTHERS = tuple(f".{n}" for n in (SPEC, BACKBONE, GRADCAM, GRADCAM_IMAGES, GRADCAM_MAPS))
# What became of a run is in the first of these that is there.
ENDINGS: dict[str, type[Metrics | Result | Failure]] = {
    METRICS: Metrics,
    RESULT: Result,
    FAILURE: Failure,
}
STATES = ("completed", "diverged", "running", "failed", "damaged", "interrupted", "missing")
ENDED_FROM_OUTSIDE = "its process was ended from outside, by a signal or for want of memory"
LONGEST_REASON = 200
R = TypeVar("R", bound=Model)


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    status: one of `STATES`; diverged: the loss was not finite; damaged: a file does not say what
    came out. reason: of what failed, is damaged or was ended from outside. metrics: of what
    completed or diverged, and of nothing else. file: which one says so.
    """

    status: str
    reason: str | None = None
    metrics: Metrics | None = None
    file: str | None = None


def read_run(path: Path) -> Run:
    """Read a `spec.json` and check that its folder's name is the run's own.

    Raises UserError where the file is missing, is not a spec, or was edited.
    """
    try:
        run = parse(Run, read_json(path), path)
    except Missing:
        raise _no_spec(path) from None
    if not path.parent.as_posix().endswith(run.path):
        raise UserError(
            f"{path}: expected it in a folder named {run.path}, the hash of its content; it was "
            "edited or moved. Delete the folder, or change the recipe in the tier instead."
        )
    return run


def _no_spec(path: Path) -> UserError:
    return UserError(f"{path}: there is no such spec; plan the run with snakemake.")


def begin(spec: Path, attempt: int = 1) -> None:
    """Clear the way for an attempt at a run; see `training.attempt`.

    Raises UserError where there is no spec, where a folder has the name of a file that a training
    writes, and where the attempt before failed by itself.
    """
    folder = spec.parent
    if not spec.exists():
        raise _no_spec(spec)
    for name in WRITTEN:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise UserError(f"{folder / name}: expected a file, got a folder; remove it.")
    if attempt > 1 and (outcome := _written(folder)).status == "failed":
        raise UserError(
            f"{folder}: it failed in the attempt before: {outcome.reason} "
            "Mend that and start the workflow again; what fails by itself is not tried again."
        )
    (folder / FAILURE).unlink(missing_ok=True)


def finish(folder: Path, metrics: dict[str, Any], history: str) -> None:
    """Declare a run finished: keep what came out, clean its folder, then write `metrics.json`."""
    write_json(folder / RESULT, {"metrics": metrics, "history": history}, durable=True)
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # a file system that has no such thing
        os.fsync(descriptor)  # the names, too, before the checkpoints lose theirs
    os.close(descriptor)
    remove_leftovers(folder)
    write_text(folder / HISTORY, history)
    write_json(folder / METRICS, metrics)


def restore(folder: Path) -> bool:
    """Put a finished run's folder in order; False where it has not finished.

    History and metrics are written again from `result.json`. Where that is missing or damaged, it
    is written from them, if they agree. What a killed training left behind is removed.
    """
    try:
        result = read_record(folder / RESULT, Result)
    except UserError:
        try:
            metrics = read_record(folder / METRICS, Metrics)
            result = Result(metrics=metrics, history=read_text(folder / HISTORY))
        except (UserError, ValidationError):
            return False
    finish(folder, result.metrics.recorded, result.history)
    return True


def read_record(path: Path, model: type[R]) -> R:
    """Read a JSON file of a run's folder.

    Raises Missing, and UserError where it does not fit, in one line: `<file's name>: <why>`.
    """
    try:
        return model.model_validate_json(read_text(path))
    except Missing:
        raise
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name, 1)) from None
    except ValidationError as error:
        raise UserError(f"{path.name}: {reason(error)}") from None


def reason(error: ValidationError) -> str:
    """Return the first thing that is wrong with a record, in one short line."""
    found = error.errors(include_url=False)[0]
    why = found["msg"][0].lower() + found["msg"][1:]
    if key := ".".join(map(str, found["loc"])):
        why = f"{key}: {why}"
    return one_line(why.removeprefix("value error, "))[:LONGEST_REASON]


def read_outcome(folder: Path) -> Outcome:
    """Return what became of a run, from its files and its lock."""
    lock = read_lock(folder)  # before the files: a run may finish meanwhile
    outcome = _written(folder)
    if outcome.metrics:
        return outcome
    if lock.holder:
        return Outcome("running")
    if outcome.status == "missing" and (lock.lost or checkpoints(folder)):
        return Outcome("interrupted", reason=ENDED_FROM_OUTSIDE if lock.lost else None)
    return outcome


def _written(folder: Path) -> Outcome:
    for name, model in ENDINGS.items():
        try:
            found = read_record(folder / name, model)
        except Missing:
            continue
        except UserError as error:
            return Outcome("damaged", reason=str(error), file=name)
        if isinstance(found, Failure):
            return Outcome(found.status, reason=found.reason, file=name)
        metrics = found.metrics if isinstance(found, Result) else found
        return Outcome(metrics.status, metrics=metrics, file=name)
    return Outcome("missing")


def read_gradcam(folder: Path) -> GradCam | None:
    """Return what `gradcam.json` says, None where it is missing or damaged."""
    with suppress(UserError):
        return read_record(folder / GRADCAM, GradCam)
    return None


def initial_weights(run: Run, folder: Path) -> Path | None:
    """Return the weights that a run in `folder` starts from, None where it starts from its seed.

    Raises UserError where they are not there.
    """
    if run.initial is None:
        return None
    weights = folder.parents[1] / run.initial.path / BACKBONE
    if not weights.exists():
        raise UserError(
            f"{weights}: there are no weights to start from; train that run first, as the "
            "workflow does."
        )
    return weights


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, the newest last."""
    return sorted(path for path in folder.glob("*.pt") if CHECKPOINT.fullmatch(path.name))


def steps_saved(folder: Path) -> int:
    """Return the step of the newest checkpoint, damaged or not, 0 where there is none."""
    saved = [int(path.name.split("-")[1]) for path in checkpoints(folder) if path.is_file()]
    return max(saved, default=0)


def remove_leftovers(folder: Path) -> None:
    """Remove a finished run's checkpoints, and files that a killed training began."""
    begun = [path for path in folder.glob(".*.part") if not path.name.startswith(OF_OTHERS)]
    for path in (*checkpoints(folder), folder / PART, *begun):
        with suppress(OSError):
            path.unlink()
