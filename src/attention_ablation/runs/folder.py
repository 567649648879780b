"""A run's folder: what is written there, read back and listed.

`spec.json` (what to do), `history.csv` (a row per epoch), `metrics.json` (what came out; its
presence means that the run ended by itself), `failure.json` (why it did not), `train.log`,
checkpoints, `weights.pt` (the final ones), `backbone.pt` (a copy for detectors that start from
it), `detections.npz` (what a detector finds in a few validation images), `.lock` (held while a
process trains the run), and `result.json`, from which a finished run's history and metrics can be
written again. Where its weights look is in `gradcam.json` (means), `gradcam.csv` (a row per image),
`gradcam.npz` (maps).
"""

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, read_json, read_text, write_json, write_text
from attention_ablation.runs.lock import read_lock
from attention_ablation.runs.records import (
    Failure,
    GradCam,
    Metrics,
    Result,
    disagreement,
    read_record,
)
from attention_ablation.spec.spec import Run
from attention_ablation.study.files import parse

HISTORY, METRICS, FAILURE = "history.csv", "metrics.json", "failure.json"
# What a finished run came to, in one file that Snakemake does not know and so never deletes.
RESULT = "result.json"
SPEC, WEIGHTS = "spec.json", "weights.pt"
# The same weights where detectors start from them: declared to Snakemake, and so kept apart.
BACKBONE = "backbone.pt"
DETECTIONS = "detections.npz"
GRADCAM, GRADCAM_IMAGES, GRADCAM_MAPS = "gradcam.json", "gradcam.csv", "gradcam.npz"
LOG = "train.log"
CHECKPOINT = re.compile(r"checkpoint-(\d{9})-[0-9a-f]{16}\.pt")  # its step, and its digest
PART = "checkpoint.part"  # one name after a kill, whatever the step was
WRITTEN = (HISTORY, METRICS, RESULT, FAILURE, WEIGHTS, DETECTIONS)  # by a training
# Beginnings of what others begin beside: the planning, a copy, Grad-CAM.
OF_OTHERS = tuple(f".{n}" for n in (SPEC, BACKBONE, GRADCAM, GRADCAM_IMAGES, GRADCAM_MAPS))
STATES = ("completed", "diverged", "running", "failed", "damaged", "interrupted", "missing")
ENDED_FROM_OUTSIDE = "its process was ended from outside, by a signal or for want of memory"


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    status: one of `STATES`; diverged: the loss was not finite; damaged: a file does not say what
    came out. reason: of what failed, is damaged or was ended from outside. metrics: of what
    completed or diverged, and of nothing else. file: the name of the damaged file.
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
        raise UserError(f"{path}: there is no such spec; plan the run with snakemake.") from None
    if not path.parent.as_posix().endswith(run.path):
        raise UserError(
            f"{path}: expected it in a folder named {run.path}, the hash of its content; it was "
            "edited or moved. Delete the folder, or change the recipe in the tier instead."
        )
    return run


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Declare a run finished: keep its result, clean its folder, then write `metrics.json`."""
    _keep(folder, {"metrics": metrics, "history": read_text(folder / HISTORY)})
    write_json(folder / METRICS, metrics)


def restore(folder: Path) -> bool:
    """Put a finished run's folder in order; False where it has not finished.

    History and metrics are written again from `result.json`. Where that is missing or damaged, it
    is written from them, if they agree. What a killed training left behind is removed.
    """
    result = _result(folder)
    if result is None:
        return False
    _keep(folder, result)
    write_text(folder / HISTORY, result["history"])
    write_json(folder / METRICS, result["metrics"])
    return True


def _keep(folder: Path, result: dict[str, Any]) -> None:
    write_json(folder / RESULT, result, durable=True)
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # a file system that has no such thing
        os.fsync(descriptor)  # the names, too, before the checkpoints lose theirs
    os.close(descriptor)
    remove_leftovers(folder)


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


def read_gradcam(folder: Path) -> GradCam | None:
    """Return what `gradcam.json` says, None where it is missing or damaged."""
    with suppress(UserError):
        return read_record(folder / GRADCAM, GradCam)
    return None


def initial_weights(run: Run, folder: Path) -> Path | None:
    """Return the weights that a run in `folder` starts from, None where it starts from its seed."""
    return folder.parents[1] / run.initial.path / BACKBONE if run.initial else None


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


def refuse_folders(folder: Path) -> None:
    """Raise UserError where a training could not write a file, because a folder has its name."""
    for name in WRITTEN:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise UserError(f"{folder / name}: expected a file, got a folder; remove it.")


def _written(folder: Path) -> Outcome:
    """Return what the first file that is there says of a run."""
    file = METRICS
    try:
        with suppress(Missing):
            metrics = read_record(folder / METRICS, Metrics)
            return Outcome(metrics.status, metrics=metrics)
        file = RESULT
        with suppress(Missing):
            metrics = read_record(folder / RESULT, Result).metrics
            return Outcome(metrics.status, metrics=metrics)
        file = FAILURE
        with suppress(Missing):
            failure = read_record(folder / FAILURE, Failure)
            return Outcome(failure.status, reason=failure.reason)
    except UserError as error:
        return Outcome("damaged", reason=str(error), file=file)
    return Outcome("missing")


def _result(folder: Path) -> dict[str, Any] | None:
    """Return what `result.json` holds, or metrics and history, whichever agree with themselves."""
    with suppress(UserError):
        result = read_record(folder / RESULT, Result)
        if disagreement(result.history, result.metrics) is None:
            kept: dict[str, Any] = read_json(folder / RESULT)
            return kept
    with suppress(UserError):
        metrics, history = read_record(folder / METRICS, Metrics), read_text(folder / HISTORY)
        if disagreement(history, metrics) is None:
            return {"metrics": read_json(folder / METRICS), "history": history}
    return None
