"""Data sets that are composed: once, into a file that carries the digest of its content."""

import hashlib
import io
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attention_ablation.base.arrays import packed
from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes, write_bytes
from attention_ablation.datasets.kept import keep
from attention_ablation.datasets.records import ClutteredDigits, ClutteredScenes

DIGEST = 64  # hexadecimal digits of a SHA-256
Arrays = Mapping[str, NDArray[Any]]


def prepare(dataset: ClutteredDigits | ClutteredScenes, folder: Path) -> Path:
    """Compose a data set into `folder` unless it is there, whole, and return the file's path."""
    composed_arrays(dataset, folder)
    return folder / dataset.prepared


def composed_arrays(dataset: ClutteredDigits | ClutteredScenes, folder: Path) -> Arrays:
    """Return what is composed of each split, by names such as `train_images`.

    `composed_with` are the packages and versions that may change a pixel. The data set is composed
    where it is not in `folder`, and again, with a warning, where its file is not as it was written.
    """
    path = folder / dataset.prepared
    return keep(path, lambda: _read(path), lambda: _compose(dataset, path))


def _read(path: Path) -> Arrays:
    content = read_bytes(path)
    # Before anything is parsed.
    if content[-DIGEST:] != _digest(path, content[:-DIGEST]):
        raise UserError(
            f"{path}: expected the data set as it was composed, but the file was changed, cut "
            "short, or composed by an earlier version."
        )
    arrays: Arrays = np.load(io.BytesIO(content), allow_pickle=False)
    return arrays


def _compose(dataset: ClutteredDigits | ClutteredScenes, path: Path) -> Arrays:
    compose: Callable[[Any, Any, range], object]
    # Imported here: scikit-learn costs a second, and only the first training composes.
    if isinstance(dataset, ClutteredScenes):
        from attention_ablation.datasets.scenes import compose_scenes as compose
    else:
        from attention_ablation.datasets.digits import compose
    versions = [f"{name} {version(name)}" for name in ("numpy", "scikit-learn", "torch")]
    arrays = {"composed_with": np.array(", ".join(versions))}
    for split, images in (
        ("train", dataset.train_images),
        ("validation", dataset.validation_images),
    ):
        found = vars(compose(dataset, split, range(images)))
        arrays |= {f"{split}_{name}": values for name, values in found.items()}
    # A zip archive ends with its comment and, before it, the comment's length: 0, then DIGEST.
    content = packed(arrays)[:-2] + DIGEST.to_bytes(2, "little")
    write_bytes(path, content + _digest(path, content))
    return arrays


def _digest(path: Path, content: bytes) -> bytes:
    """Return a digest of a file's content under its name, which says what data set it is."""
    return hashlib.sha256(path.name.encode() + content).hexdigest().encode()
