"""Image files in a folder for each class: listed once, checked against what the data set has."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attention_ablation.base.errors import UserError, few
from attention_ablation.datasets.contract import IMAGENET_MEAN, IMAGENET_STD
from attention_ablation.datasets.image_folders import Images
from attention_ablation.datasets.reading.data import ImageData, fingerprint, of_channels
from attention_ablation.datasets.reading.decode import read_image
from attention_ablation.datasets.reading.kept import Arrays, keep

# torchvision's ImageFolder takes files with these endings for images, and so does this.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Image folders keep each split in a folder of this name.
SPLITS = ("train", "val")


@dataclass(frozen=True)
class FileList:
    """One split's files: names (N,) below `folder` as `<class>/<file>`, sorted, labels, and bytes.

    A label is the place of a class's folder in the sorted names. Arrays, because a million Python
    objects would be copied into every worker process, bit by bit, as their reference counts change.
    """

    folder: Path
    classes: list[str]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return (3, H, W) uint8 and the label; raises as `read_image`."""
        return read_image(self.path(index)), int(self.labels[index])

    def path(self, index: int) -> Path:
        """Return the path of a file."""
        return self.folder / os.fsdecode(bytes(self.names[index]))

    def file(self, index: int) -> tuple[Path, None]:
        """Return the path of a file; no annotation says its size in px."""
        return self.path(index), None


def list_files(dataset: Images, datasets: Path, cache: Path | None = None) -> ImageData:
    """Return a data set's files, which have to be of the classes and as many as it should have.

    Args:
        datasets: the folder that has each data set by its name.
        cache: folder in which the list is kept, because a million files take minutes to list. It
            is used again where no class's folder has changed since; None lists anew.

    The fingerprint is of every file's relative name and size in bytes. Raises UserError for what
    was expected and what was found instead.
    """
    dataset.require(datasets)
    root = datasets / dataset.folder
    listed = _listed(root, cache)
    train, validation = (
        FileList(
            root / split,
            _texts(listed[f"{split}_classes"]),
            *(listed[f"{split}_{name}"] for name in ("names", "labels", "sizes")),
        )
        for split in SPLITS
    )
    _check(dataset, train, validation)
    lines = (
        b"%s/%s %d\n" % (files.folder.name.encode(), bytes(name), size)
        for files in (train, validation)
        for name, size in zip(files.names, files.sizes, strict=True)
    )
    mean, std = of_channels(IMAGENET_MEAN), of_channels(IMAGENET_STD)
    return ImageData(train, validation, len(train.classes), mean, std, fingerprint(*lines))


def kept_list(root: Path, cache: Path) -> Path:
    """Return the path of the file that keeps the list of the files in `root`."""
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:10]
    return cache / f"{root.name}_{key}.files.npz"


def _listed(root: Path, cache: Path | None) -> Arrays:
    """Return of each split, `train_` and `val_`: (C,) classes, and changed, ns since 1970; of all
    its files (N,) names, labels and sizes.
    """

    def make() -> Arrays:
        return {
            f"{split}_{name}": values
            for split in SPLITS
            for name, values in _list_split(root / split).items()
        }

    def current(kept: Arrays) -> bool:
        return all(
            _changes(root / split)
            == dict(zip(_texts(kept[f"{split}_classes"]), kept[f"{split}_changed"], strict=True))
            for split in SPLITS
        )

    return keep(kept_list(root, cache), make, current) if cache else make()


def _texts(names: NDArray[np.bytes_]) -> list[str]:
    return [os.fsdecode(name) for name in names.tolist()]


def _changes(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {
            entry.name: entry.stat().st_mtime_ns
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".")
        }


def _list_split(folder: Path) -> dict[str, NDArray[Any]]:
    # Before the files: what comes in meanwhile is then seen as a change.
    changes = dict(sorted(_changes(folder).items()))
    files = []
    for label, name in enumerate(changes):
        with os.scandir(folder / name) as entries:
            found = sorted(
                (entry.name, entry.stat().st_size)
                for entry in entries
                if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".")
            )
        files += [(os.fsencode(f"{name}/{file}"), label, size) for file, size in found]
    return {
        "classes": np.array([os.fsencode(name) for name in changes], np.bytes_),
        "changed": np.array(list(changes.values()), np.int64),
        "names": np.array([name for name, *_ in files], np.bytes_),
        "labels": np.array([label for _, label, _ in files], np.int64),
        "sizes": np.array([size for *_, size in files], np.int64),
    }


def _check(dataset: Images, train: FileList, validation: FileList) -> None:
    for files in (train, validation):
        if len(files.classes) != dataset.classes:
            raise UserError(
                f"{files.folder}: expected a folder for each of {dataset.classes:,} classes, got "
                f"{len(files.classes):,}: {few(files.classes)}. {dataset.guide}"
            )
        if empty := [name for name, n in _counts(files) if not n]:
            raise UserError(
                f"{files.folder}: expected images in every class, got none in {few(empty)}. "
                f"Their names have to end in {', '.join(ENDINGS)}."
            )
    if train.classes != validation.classes:
        only = sorted(set(train.classes) ^ set(validation.classes))
        raise UserError(
            f"{train.folder.parent}: expected the same classes in train and val, got "
            f"{few(only)} in one of them only. {dataset.guide}"
        )
    expected, evens = (dataset.train_images, dataset.validation_images), (None, dataset.even)
    for files, images, even in zip((train, validation), expected, evens, strict=True):
        if len(files) != images:
            wrong = [f"{n} in {name}" for name, n in _counts(files) if n != even]
            uneven = f" ({few(wrong)}, not {even})" if even and wrong else ""
            raise UserError(
                f"{files.folder}: expected {images:,} images, got {len(files):,}{uneven}. "
                f"{dataset.guide}"
            )


def _counts(files: FileList) -> list[tuple[str, int]]:
    images = np.bincount(files.labels, minlength=len(files.classes))
    return list(zip(files.classes, images.tolist(), strict=True))
