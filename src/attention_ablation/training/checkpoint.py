"""Checkpoints: written whole or not at all, the last two kept, the newest sound one loaded."""

import hashlib
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes, write_bytes
from attention_ablation.runs.folder import PART, WEIGHTS, checkpoints

KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `state` as the checkpoint of `step`, and keep but the newest one of an earlier step.

    Those of this step or of a later one are removed: what went on from none of them outdates them.

    The name carries the first 16 hexadecimal digits of the content's SHA-256, so a file that was
    cut short or damaged is known for one. Raises UserError as `write_bytes` does; the checkpoints
    before are then as they were.
    """
    content, digest = _packed(state)
    path = folder / f"checkpoint-{step:09d}-{digest[:16]}.pt"
    write_bytes(path, content, durable=True, part=PART)
    others = [other for other in checkpoints(folder) if other != path]
    earlier = [other for other in others if other.name[:20] < path.name[:20]]
    for old in set(others) - set(earlier[1 - KEPT :]):
        with suppress(OSError):  # a folder of that name
            old.unlink()


def save_weights(folder: Path, weights: dict[str, Any]) -> str:
    """Write a finished run's weights; return the SHA-256 of what was meant to be written."""
    content, digest = _packed(weights)
    write_bytes(folder / WEIGHTS, content, durable=True, part=PART)
    return digest


def load(folder: Path) -> dict[str, Any] | None:
    """Return the newest sound checkpoint's state, None where there is none.

    Says which ones were skipped. Raises UserError for one that cannot be read, which may be sound.
    """
    paths = checkpoints(folder)
    for path in reversed(paths):
        state = None if path.is_dir() else _read(path)
        if isinstance(state, dict):
            return state
        print(f"warning: {path} is damaged; falling back to the checkpoint before it.", flush=True)
    if paths:
        print("warning: no sound checkpoint is left; starting over.", flush=True)
    return None


def _packed(state: dict[str, Any]) -> tuple[memoryview, str]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    return content, hashlib.sha256(content).hexdigest()


def _read(path: Path) -> Any:
    """Return what a checkpoint holds, None for what is none."""
    try:
        content = read_bytes(path)
        if hashlib.sha256(content).hexdigest()[:16] != path.stem.split("-")[-1]:
            return None
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except UserError:
        raise
    except Exception as error:  # any of the many that torch raises
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            raise UserError(
                f"{path}: memory does not suffice to read it; give the job more, then start it "
                "again: it resumes."
            ) from None
        return None
