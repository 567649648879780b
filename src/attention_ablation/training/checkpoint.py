"""Checkpoints: written whole or not at all, the last two kept, the newest sound one loaded."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from attention_ablation.study.errors import UserError
from attention_ablation.study.runs import CHECKPOINTS, WEIGHTS

KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `state` as the checkpoint of `step`, and remove all but the last two.

    The name carries the first 16 hexadecimal digits of the content's SHA-256, so a file that was
    cut short or damaged is known for one. Raises UserError as `write` does; the checkpoints before
    are then as they were.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    write(folder / f"checkpoint-{step:09d}-{_digest(content)}.pt", content)
    for old in sorted(folder.glob(CHECKPOINTS))[:-KEPT]:
        old.unlink()


def save_weights(folder: Path, weights: dict[str, Any]) -> None:
    """Write a finished run's weights, which the checkpoints are then no longer needed for."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    write(folder / WEIGHTS, buffer.getbuffer())


def remove(folder: Path) -> None:
    """Remove all checkpoints of a finished run."""
    for path in folder.glob(CHECKPOINTS):
        path.unlink()


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is on the disk before it has its name.

    Raises UserError where the folder cannot be written or the disk is full.
    """
    part = path.parent / "checkpoint.part"
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path}: it cannot be written: {error.strerror}. What was there before is intact; "
            "make room or the folder writable, and run it again."
        ) from None


def load(folder: Path) -> dict[str, Any] | None:
    """Return the newest sound checkpoint's state, None where there is none.

    Says which ones were skipped.
    """
    paths = sorted(folder.glob(CHECKPOINTS), reverse=True)
    for path in paths:
        content = path.read_bytes()
        if _digest(content) == path.stem.split("-")[-1]:
            state: dict[str, Any] = torch.load(
                io.BytesIO(content), weights_only=True, map_location="cpu"
            )
            return state
        print(f"warning: {path} is damaged; falling back to the checkpoint before it.", flush=True)
    if paths:
        print("warning: no sound checkpoint is left; starting over.", flush=True)
    return None


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
