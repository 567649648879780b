"""GPUs of a machine that has no scheduler: each training takes a free slot on one of them.

Nothing here imports torch: CUDA_VISIBLE_DEVICES must be set before it looks for GPUs.
"""

import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, product, takewhile
from pathlib import Path
from typing import TextIO

from attention_ablation.base.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 0.5
# A line of `nvidia-smi -L`: a GPU, or below it one of the parts (MIG) that it is divided into.
LISTED = re.compile(r"(GPU|\s+MIG) .*\(UUID: ([^)]+)\)")


@contextmanager
def gpu_slot(runs_per_gpu: int) -> Iterator[str | None]:
    """Take a slot on a GPU, the only one that this process then sees, and yield its UUID.

    Waits until a slot is free. It is free again when this process ends, however it ends. All GPUs'
    first slots are taken before any second one. Without GPUs, or without nvidia-smi to list them,
    yields None at once. Raises UserError for fewer than one slot of each GPU.
    """
    if runs_per_gpu < 1:
        raise UserError(f"--runs-per-gpu: expected 1 or more, got {runs_per_gpu}.")
    gpus = visible_gpus()
    if not gpus:
        yield None
        return
    before = {VISIBLE: os.environ[VISIBLE]} if VISIBLE in os.environ else {}
    gpu, lock = _take(gpus, runs_per_gpu)
    with lock:
        os.environ[VISIBLE] = gpu
        try:
            yield gpu
        finally:
            del os.environ[VISIBLE]
            os.environ |= before


def visible_gpus() -> list[str]:
    """Return the UUIDs of the GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES lets through.

    A GPU that is divided counts as its parts. Numbers count in nvidia-smi's order.
    """
    listed = _listed()
    if VISIBLE not in os.environ:
        return list(chain.from_iterable(listed.values()))
    named = (_parts(entry.strip(), listed) for entry in os.environ[VISIBLE].split(","))
    # CUDA, too, ignores an entry that it does not know and all after it.
    return list(dict.fromkeys(chain.from_iterable(takewhile(bool, named))))


def granted() -> list[str]:
    """Return what says that this process was given GPUs: CUDA_VISIBLE_DEVICES, or nvidia-smi."""
    if VISIBLE not in os.environ:
        return visible_gpus()
    value = os.environ[VISIBLE].strip()
    # The last one is what Slurm writes for a job without a GPU.
    return [] if value in ("", "-1", "NoDevFiles") else [value]


def _listed() -> dict[str, list[str]]:
    """Return each GPU's UUID with those of its parts, or with itself where it is not divided."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, check=True, encoding="utf-8", timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    divided: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if found := LISTED.match(line):
            what, uuid = found.groups()
            if what == "GPU":
                divided[uuid] = []
            else:
                divided[list(divided)[-1]].append(uuid)
    return {uuid: parts or [uuid] for uuid, parts in divided.items()}


def _parts(entry: str, listed: dict[str, list[str]]) -> list[str]:
    """Return what an entry of CUDA_VISIBLE_DEVICES names: a number, a UUID or its beginning."""
    if entry.startswith("MIG-"):
        return [entry]
    if entry.isdecimal():
        return dict(enumerate(listed.values())).get(int(entry), [])
    named = [uuid for uuid in listed if entry and uuid.startswith(entry)]
    return listed[named[0]] if len(named) == 1 else []


def _take(gpus: list[str], runs_per_gpu: int) -> tuple[str, TextIO]:
    folder = Path(tempfile.gettempdir()) / f"attention-ablation-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    said = False
    while True:
        for slot, gpu in product(range(runs_per_gpu), gpus):
            # Older drivers write a part's UUID with slashes.
            lock = (folder / f"{gpu.replace('/', '_')}-{slot}.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return gpu, lock
            except BlockingIOError:
                lock.close()
        if not said:
            print(f"all GPUs are taken ({', '.join(gpus)}); waiting for a free one.", flush=True)
            said = True
        time.sleep(POLL_SECONDS)
