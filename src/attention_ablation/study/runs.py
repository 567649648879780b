"""A run's folder: what is written there, read back and listed.

`spec.json` (what to do), `history.csv` (a row per epoch), `metrics.json` (what came out; its
presence means that the run ended by itself), `failure.json` (why it did not), `train.log`,
checkpoints, `weights.pt` (the final ones), `backbone.pt` (a copy for detectors that start from
it), `detections.npz` (what a detector finds in a few validation images), `.lock` (held while a
process trains the run), and `result.json`, from which a finished run's history and metrics can be
written again. Where its weights look is in `gradcam.json` (means), `gradcam.csv` (a row per image),
`gradcam.npz` (maps).
"""

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from attention_ablation.study.errors import UserError, invalid
from attention_ablation.study.io import write_json, write_text
from attention_ablation.study.spec import Run

HISTORY, METRICS, FAILURE = "history.csv", "metrics.json", "failure.json"
# What a finished run came to, in one file that Snakemake does not know and so never deletes.
RESULT = "result.json"
SPEC, WEIGHTS = "spec.json", "weights.pt"
# The same weights where detectors start from them: declared to Snakemake, and so kept apart.
BACKBONE = "backbone.pt"
DETECTIONS = "detections.npz"
GRADCAM, GRADCAM_IMAGES, GRADCAM_MAPS = "gradcam.json", "gradcam.csv", "gradcam.npz"
# Columns of gradcam.csv, and what their means are called in gradcam.json.
GRADCAM_MEANS = {
    "energy_in_box": "energy_in_box",
    "hit": "hit_rate",
    "iou": "iou",
    "probability": "target_probability",
}
LOCK, LOG = ".lock", "train.log"
CHECKPOINTS = "checkpoint-*.pt"  # checkpoint-<step>-<digest>.pt


def read_run(path: Path) -> Run:
    """Read a `spec.json` and check that its folder's name is the run's own.

    Raises UserError where the file is missing, is not a spec, or was edited.
    """
    try:
        run = Run.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such spec; plan the run with snakemake.") from None
    except ValidationError as error:
        raise invalid(error, Run, path) from None
    if not path.parent.as_posix().endswith(run.path):
        raise UserError(
            f"{path}: expected it in a folder named {run.path}, the hash of its content; it was "
            "edited or moved. Delete the folder, or change the recipe in the tier instead."
        )
    return run


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Declare a run finished: keep its result, clean its folder, then write `metrics.json`."""
    history = (folder / HISTORY).read_text("utf-8")
    write_json(folder / RESULT, {"metrics": metrics, "history": history})
    remove_leftovers(folder)
    write_json(folder / METRICS, metrics)


def remove_leftovers(folder: Path) -> None:
    """Remove what a finished run no longer needs: checkpoints, and files of a killed writer."""
    for path in [*folder.glob(CHECKPOINTS), *folder.glob("*.part")]:
        path.unlink(missing_ok=True)


def restore(folder: Path) -> bool:
    """Write a finished run's history and metrics again; False where it has not finished."""
    try:
        result = json.loads((folder / RESULT).read_text("utf-8"))
    except FileNotFoundError:
        return False
    remove_leftovers(folder)
    write_text(folder / HISTORY, result["history"])
    write_json(folder / METRICS, result["metrics"])
    return True


def read_outcome(folder: Path) -> dict[str, Any]:
    """Return a run's metrics, its failure, or `{"status": "missing"}`.

    `status` is one of completed, diverged (the loss was not finite), failed, missing.
    """
    for name in (METRICS, RESULT, FAILURE):
        try:
            outcome: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
            if name == RESULT:
                outcome = outcome["metrics"]
            if isinstance(outcome["status"], str):
                return outcome
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, KeyError):  # ValueError: of JSON and of UTF-8
            pass
        return {"status": "failed", "reason": f"{name} is damaged: it holds no outcome"}
    return {"status": "missing"}


def initial_weights(run: Run, folder: Path) -> Path | None:
    """Return the weights that a run in `folder` starts from, None where it starts from its seed."""
    return folder.parents[1] / run.initial.path / BACKBONE if run.initial else None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_gradcam(folder: Path) -> dict[str, Any]:
    """Return what `gradcam.json` holds; nothing where it is missing or not JSON."""
    try:
        found: dict[str, Any] = json.loads((folder / GRADCAM).read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def steps_saved(folder: Path) -> int:
    """Return the steps that the newest checkpoint holds, 0 where there is none."""
    return max((int(path.name.split("-")[1]) for path in folder.glob(CHECKPOINTS)), default=0)


@contextmanager
def held(folder: Path, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a run's folder against a second process; the lock dies with its holder.

    `meanwhile` is called twice a second while another process holds it.
    """
    with (folder / LOCK).open("a+") as lock:
        said = False
        while not _locked(lock):
            if not said:
                print(f"{folder} is being trained by another process; waiting for it.", flush=True)
                said = True
            meanwhile()
            time.sleep(0.5)
        lock.truncate(0)
        print(f"{socket.gethostname()}, process {os.getpid()}", file=lock, flush=True)
        yield


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{lock.name}: this file system cannot lock files ({error.strerror}), so two jobs "
            "could train one run; put `results` in config.yaml on one that can."
        ) from None
    return True


def holder(folder: Path) -> str | None:
    """Return the machine and process that train a run, None where nobody does."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return (folder / LOCK).read_text().strip()
    return None
