"""Files in the data folder that save work: used where they are sound, made again where not."""

import fcntl
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, packed, read_bytes, write_bytes
from attention_ablation.datasets.contract import Composed
from attention_ablation.datasets.reading.data import fingerprint

LOCK = ".lock"  # of a data folder
DIGEST = 64  # hexadecimal digits of a SHA-256
Arrays = Mapping[str, NDArray[Any]]


def read_composed(
    dataset: Composed, folder: Path, names: Sequence[str], identity: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """Return both splits' tensors of these names, and the facts that go with them.

    mean, std: of all training pixels, 0 to 1. fingerprint: of the names in `identity`.
    """
    from torch import from_numpy

    arrays = composed_arrays(dataset, folder)
    splits = ("train", "validation")
    tensors = [[from_numpy(arrays[f"{split}_{name}"]) for name in names] for split in splits]
    return tensors, {
        "mean": float(arrays["train_images"].mean() / 255),
        "std": float(arrays["train_images"].std() / 255),
        "fingerprint": fingerprint(*(arrays[f"{s}_{name}"] for s in splits for name in identity)),
        "composed_with": str(arrays["composed_with"]),
    }


def composed_arrays(dataset: Composed, folder: Path) -> Arrays:
    """Return what is composed of each split, by names such as `train_images`.

    `composed_with` are the packages and versions that may change a pixel. The data set is composed
    where it is not in `folder`, and again, with a warning, where its file is not as it was written.
    """

    def compose() -> Arrays:
        versions = [f"{name} {version(name)}" for name in ("numpy", "scikit-learn", "torch")]
        arrays = {"composed_with": np.array(", ".join(versions))}
        train = dataset.compose("train", range(dataset.train_images))
        validation = dataset.compose("validation", range(dataset.validation_images))
        for split, images in (("train", train), ("validation", validation)):
            arrays |= {f"{split}_{name}": values for name, values in vars(images).items()}
        return arrays

    return keep(folder / dataset.prepared, compose)


def keep(
    path: Path, make: Callable[[], Arrays], current: Callable[[Arrays], bool] = lambda kept: True
) -> Arrays:
    """Return the arrays of a file, or what `make` gives where there is none, which is then kept.

    Of several processes one makes it, and the others then read it. It is made again where it is
    not `current`, and, which is said on stderr, where it is not as it was written.

    Raises UserError where the folder cannot be written.
    """

    def read() -> Arrays:
        arrays = _read(path)
        if not current(arrays):
            raise Missing(f"{path}: what it was made of has changed.")
        return arrays

    with suppress(UserError):
        return read()
    with _alone(path.parent):
        try:
            return read()
        except Missing:
            pass
        except UserError as damage:
            print(f"warning: {damage} It is made again.", file=sys.stderr, flush=True)
        arrays = make()
        # A zip archive ends with its comment and, before it, the comment's length: 0, then DIGEST.
        content = packed(arrays)[:-2] + DIGEST.to_bytes(2, "little")
        write_bytes(path, content + _digest(path, content))
        return arrays


def _read(path: Path) -> Arrays:
    content = read_bytes(path)
    # Before anything is parsed.
    if content[-DIGEST:] != _digest(path, content[:-DIGEST]):
        raise UserError(
            f"{path}: expected the file as it was written, but it was changed or cut short."
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _digest(path: Path, content: bytes) -> bytes:
    # Under its name, which says what it is of.
    return hashlib.sha256(path.name.encode() + content).hexdigest().encode()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes a file in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder that can be written, got: {error.strerror}."
        ) from None
    try:
        with suppress(OSError):  # where files cannot be locked, several may make it
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
