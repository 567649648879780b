"""Folders of image files: listed once, held to what the data set should have, and fingerprinted.

Nothing here imports torch: a workflow looks for its data before it starts a job.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, read_json, write_text
from attention_ablation.datasets.kept import keep
from attention_ablation.datasets.records import (
    SPLITS,
    Cifar,
    Coco,
    Dataset,
    DetectionDataset,
    Images,
    Voc,
)

# torchvision's ImageFolder takes files with these endings for images, and so does this.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SHOWN = 3
GUIDE = "docs/datasets.md shows how it must lie."


@dataclass(frozen=True)
class FileList:
    """One split's files: names (N,) below `folder` as `<class>/<file>`, sorted, labels, and bytes.

    Arrays, because a million Python objects would be copied into every worker process, bit by bit,
    as their reference counts change.
    """

    folder: Path
    classes: list[str]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Return the path of a file."""
        return self.folder / os.fsdecode(bytes(self.names[index]))


@dataclass(frozen=True)
class ImageFiles:
    """A data set of image files: both splits, whose classes are the same."""

    root: Path
    train: FileList
    validation: FileList

    @property
    def classes(self) -> int:
        """Number of classes; a label is the place of a class's folder in the sorted names."""
        return len(self.train.classes)

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of every file's relative name and size."""
        digest = hashlib.sha256()
        for split, files in (("train", self.train), ("val", self.validation)):
            for name, size in zip(files.names, files.sizes, strict=True):
                digest.update(b"%s/%s %d\n" % (split.encode(), bytes(name), size))
        return digest.hexdigest()[:16]


@contextmanager
def refused() -> Iterator[None]:
    """Turn what the system refuses while data are read, such as a folder's list, into UserError."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: it" if error.filename else "the data"
        raise UserError(f"{what} cannot be read: {error.strerror or error}.") from None


@refused()
def require_dataset(dataset: Dataset | DetectionDataset, datasets: Path) -> None:
    """Raise UserError where a data set that is not composed is not there at all."""
    if isinstance(dataset, (Voc, Coco)):
        root = datasets / dataset.lists[0].partition("/")[0]
        if not root.is_dir():
            raise UserError(
                f"{root}: there is no such folder; docs/detection-data.md says how the data lie."
            )
        for name in dataset.lists:
            required(datasets / name)
    elif isinstance(dataset, Images):
        find(dataset, datasets)
    elif isinstance(dataset, Cifar) and not (datasets / dataset.name).is_dir():
        raise UserError(
            f"{datasets / dataset.name}: there is no such folder; attention-ablation data download "
            f"{dataset.name} makes it. {GUIDE}"
        )


def required(path: Path) -> Path:
    """Return a path that exists; raises UserError that says what is in its nearest folder."""
    if path.exists():
        return path
    there = next(folder for folder in path.parents if folder.is_dir())
    names = sorted(entry.name for entry in there.iterdir())
    found = ", ".join(names[:8]) + ", ..." * (len(names) > 8) if names else "nothing"
    raise UserError(
        f"expected {path}, but {there} has {found}; docs/detection-data.md says how the data lie."
    )


def find(dataset: Images, datasets: Path) -> Path:
    """Return the folder in which a data set lies.

    Args:
        datasets: the folder that has each data set by its name.

    Raises UserError where the folder, or that of a split, is not there.
    """
    root = datasets / dataset.folder
    missing = [name for name in SPLITS.values() if not (root / name).is_dir()]
    if missing:
        there = sorted(path.name for path in root.iterdir()) if root.is_dir() else None
        found = f"got {_few(there)}" if there else "got an empty folder"
        found = "there is no such folder" if there is None else found
        hint = ""
        if there and any(name.startswith("ILSVRC2012") for name in there):
            hint = " Unpack the archives: attention-ablation data download imagenet."
        raise UserError(
            f"{root}: expected the folders train and val with a folder for each of "
            f"{dataset.classes:,} classes, {found}.{hint} {GUIDE}"
        )
    return root


@refused()
def list_files(dataset: Images, datasets: Path, cache: Path | None = None) -> ImageFiles:
    """Return a data set's files, held to the classes and counts that it should have.

    Args:
        datasets: the folder that has each data set by its name.
        cache: folder in which the list is kept, because a million files take minutes to list. It
            is used again where no class's folder has changed since; None lists anew.

    Raises UserError for what was expected and what was found instead.
    """
    root = find(dataset, datasets)
    listed = _listed(root, cache)
    splits = {split: _split(root / name, listed[name]) for split, name in SPLITS.items()}
    _check_classes(dataset, splits["train"], splits["validation"])
    for split, expected in (
        ("train", dataset.train_images),
        ("validation", dataset.validation_images),
    ):
        files = splits[split]
        if len(files.names) != expected:
            raise UserError(
                f"{files.folder}: expected {expected:,} images, got {len(files.names):,}"
                f"{_uneven(dataset, files)}. {GUIDE}"
            )
    return ImageFiles(root, splits["train"], splits["validation"])


def kept_list(root: Path, cache: Path) -> Path:
    """Return the path of the file that keeps the list of the files in `root`."""
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:10]
    return cache / f"{root.name}_{key}.files.json"


def _listed(root: Path, cache: Path | None) -> dict[str, Any]:
    """Return {split: {class: {"changed": ns, "files": [[name, bytes], ...]}}}."""

    def make() -> dict[str, Any]:
        return {split: _list_split(root / split) for split in SPLITS.values()}

    if cache is None:
        return make()
    path = kept_list(root, cache)

    def read() -> dict[str, Any]:
        kept = read_json(path)
        if not isinstance(kept, dict) or kept.pop("sha256", None) != _digest(kept):
            raise UserError(
                f"{path}: expected the list of files as it was written, but it was changed, cut "
                "short, or written by an earlier version."
            )
        for split, listed in kept.items():
            if _changes(root / split) != {name: of["changed"] for name, of in listed.items()}:
                raise Missing(f"{path}: {root / split} has changed since.")
        return kept

    def write() -> dict[str, Any]:
        listed = make()
        write_text(path, json.dumps(listed | {"sha256": _digest(listed)}, separators=(",", ":")))
        return listed

    return keep(path, read, write)


def _digest(listed: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _changes(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {
            entry.name: entry.stat().st_mtime_ns
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".")
        }


def _list_split(folder: Path) -> dict[str, Any]:
    listed = {}
    # Before the files: what comes in meanwhile is then seen as a change.
    for name, changed in sorted(_changes(folder).items()):
        with os.scandir(folder / name) as entries:
            files = sorted(
                (entry.name, entry.stat().st_size)
                for entry in entries
                if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".")
            )
        listed[name] = {"changed": changed, "files": files}
    return listed


def _split(folder: Path, listed: dict[str, Any]) -> FileList:
    counts = [len(found["files"]) for found in listed.values()]
    files = [(name, *file) for name, found in listed.items() for file in found["files"]]
    return FileList(
        folder,
        list(listed),
        np.array([os.fsencode(f"{name}/{file}") for name, file, _ in files], np.bytes_),
        np.repeat(np.arange(len(counts)), counts),
        np.array([size for *_, size in files], np.int64),
    )


def _check_classes(dataset: Images, train: FileList, validation: FileList) -> None:
    for files in (train, validation):
        if len(files.classes) != dataset.classes:
            raise UserError(
                f"{files.folder}: expected a folder for each of {dataset.classes:,} classes, got "
                f"{len(files.classes):,}: {_few(files.classes)}. {GUIDE}"
            )
        images = np.bincount(files.labels, minlength=len(files.classes))
        if empty := [name for name, n in zip(files.classes, images, strict=True) if not n]:
            raise UserError(
                f"{files.folder}: expected images in every class, got none in {_few(empty)}. "
                f"Their names have to end in {', '.join(ENDINGS)}."
            )
    if train.classes != validation.classes:
        only = sorted(set(train.classes) ^ set(validation.classes))
        raise UserError(
            f"{train.folder.parent}: expected the same classes in train and val, got "
            f"{_few(only)} in one of them only. {GUIDE}"
        )


def _uneven(dataset: Images, files: FileList) -> str:
    """Return what makes ImageNet's validation set uneven: 50 images of each class."""
    if dataset.name != "imagenet" or files.folder.name != "val":
        return ""
    counts = zip(files.classes, np.bincount(files.labels), strict=True)
    wrong = [f"{n} in {name}" for name, n in counts if n != 50]
    return f" ({_few(wrong)}, not 50)" if wrong else ""


def _few(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
