"""Image files in a folder for each class: ImageNet, Imagenette, and a user's own."""

from __future__ import annotations

import hashlib
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from attention_ablation.base.errors import UserError, few
from attention_ablation.datasets.contract import IMAGENET_MEAN, IMAGENET_STD, Dataset, Folders
from attention_ablation.datasets.reading.data import FileList, ImageData, fingerprint, of_channels
from attention_ablation.datasets.reading.kept import Arrays, keep

# torchvision's ImageFolder takes files with these endings for images, and so does this.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "val")  # the names of their folders
ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")


class Images(Dataset):
    """Image files of any size in a folder for each class: `train/<class>` and `val/<class>`."""

    augmentations: ClassVar = ("none", "crop-flip")
    in_memory: ClassVar = False
    even: ClassVar[int | None] = None  # validation images of every class, where they are as many

    if TYPE_CHECKING:

        @property
        def folder(self) -> str: ...

    image_size: int = Field(224, ge=32, description="Side of the crop, px.")
    resize: int = Field(256, ge=32, description="Shorter side before the evaluation crop, px.")

    @model_validator(mode="after")
    def _contains_crop(self) -> Self:
        if self.resize < self.image_size:
            raise ValueError(
                f"expected a resize of at least image_size ({self.image_size}), got {self.resize}"
            )
        return self

    def require(self, datasets: Path) -> None:
        root = datasets / self.folder
        if all((root / split).is_dir() for split in SPLITS):
            return
        there, found = [], "there is no such folder"
        if root.is_dir():
            there = sorted(path.name for path in root.iterdir())
            found = f"got {few(there) or 'an empty folder'}"
        hint = ""
        if any(name.startswith("ILSVRC2012") for name in there):
            hint = " Unpack the archives: attention-ablation data download imagenet."
        raise UserError(
            f"{root}: expected the folders train and val with a folder for each of "
            f"{self.classes:,} classes, {found}.{hint} {self.guide}"
        )

    def load(self, folders: Folders) -> ImageData:
        return list_files(self, folders.datasets, folders.composed)


class ImageNet(Images):
    """ILSVRC 2012: 1,281,167 training and 50,000 validation images of 1,000 classes."""

    downloads: ClassVar = ("imagenet",)
    folder: ClassVar = "imagenet"
    classes: ClassVar = 1_000
    train_images: ClassVar = 1_281_167
    validation_images: ClassVar = 50_000
    even: ClassVar = 50

    name: Literal["imagenet"]

    @classmethod
    def download(cls, name: str, folder: Path) -> None:
        """Unpack the archives, which nobody may fetch."""
        if missing := [name for name in ARCHIVES if not (folder / name).is_file()]:
            raise UserError(
                f"{folder}: expected ImageNet's archives, got no {', '.join(missing)}. They may be "
                "had from image-net.org, by those who agree to its terms; put or link them there."
            )
        from torchvision import datasets

        for split in SPLITS:
            datasets.ImageNet(folder, split)


class Imagenette(Images):
    """Ten easily told classes of ImageNet (version 2: 9,469 training, 3,925 validation images)."""

    downloads: ClassVar = ("imagenette-full", "imagenette-320px", "imagenette-160px")
    classes: ClassVar = 10
    train_images: ClassVar = 9_469
    validation_images: ClassVar = 3_925

    name: Literal["imagenette"]
    size: Literal["full", "320px", "160px"] = Field(
        "320px", description="Which of the archives: the shorter side of its images."
    )

    @property
    def folder(self) -> str:
        # As torchvision unpacks it.
        suffix = "" if self.size == "full" else "-" + self.size.removesuffix("px")
        return f"imagenette/imagenette2{suffix}"

    @classmethod
    def download(cls, name: str, folder: Path) -> None:
        from torchvision import datasets

        datasets.Imagenette(folder, size=name.removeprefix("imagenette-"), download=True)


class ImageFolder(Images):
    """A user's own images, a folder for each class; the counts are checked on first use."""

    name: Literal["folder"]
    folder: str = Field(description="Its name below the folder of the data sets.")
    classes: int = Field(ge=2)
    train_images: int = Field(ge=1)
    validation_images: int = Field(ge=1)

    @field_validator("folder")
    @classmethod
    def _plain(cls, folder: str) -> str:
        if not re.fullmatch(r"[\w-][\w.-]*", folder):
            raise ValueError(
                f"expected the name of a folder (letters, digits, '.', '_', '-'), got '{folder}'; "
                "link it there under such a name"
            )
        return folder


def list_files(dataset: Images, datasets: Path, cache: Path | None = None) -> ImageData:
    """Return a data set's files, which have to be of the classes and as many as it should have.

    cache: folder in which the list is kept, because a million files take minutes to list. It is
    used again where no class's folder has changed since; None lists anew. The fingerprint is of
    every file's relative name and size in bytes.
    """
    dataset.require(datasets)
    root = datasets / dataset.folder
    make = partial(_list, root)
    listed = keep(kept_list(root, cache), make, partial(_current, root)) if cache else make()
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


def _list(root: Path) -> Arrays:
    """Return of each split, `train_` and `val_`: (C,) classes, and changed, ns since 1970; of all
    its files (N,) names, labels and sizes.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for split in SPLITS:
        # Before the files: what comes in meanwhile is then seen as a change.
        changes = _changes(root / split)
        files = []
        for label, name in enumerate(changes):
            with os.scandir(root / split / name) as entries:
                found = sorted(
                    (entry.name, entry.stat().st_size)
                    for entry in entries
                    if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".")
                )
            files += [(os.fsencode(f"{name}/{file}"), label, size) for file, size in found]
        arrays |= {
            f"{split}_classes": np.array([os.fsencode(name) for name in changes], np.bytes_),
            f"{split}_changed": np.array(list(changes.values()), np.int64),
            f"{split}_names": np.array([name for name, *_ in files], np.bytes_),
            f"{split}_labels": np.array([label for _, label, _ in files], np.int64),
            f"{split}_sizes": np.array([size for *_, size in files], np.int64),
        }
    return arrays


def _current(root: Path, kept: Arrays) -> bool:
    return all(
        _changes(root / split)
        == dict(zip(_texts(kept[f"{split}_classes"]), kept[f"{split}_changed"], strict=True))
        for split in SPLITS
    )


def _texts(names: NDArray[np.bytes_]) -> list[str]:
    return [os.fsdecode(name) for name in names.tolist()]


def _changes(folder: Path) -> dict[str, int]:
    """Return when each class's folder changed, in the order of their names."""
    with os.scandir(folder) as entries:
        return dict(
            sorted(
                (entry.name, entry.stat().st_mtime_ns)
                for entry in entries
                if entry.is_dir() and not entry.name.startswith(".")
            )
        )


def _check(dataset: Images, train: FileList, validation: FileList) -> None:
    for files in (train, validation):
        if len(files.classes) != dataset.classes:
            raise UserError(
                f"{files.folder}: expected a folder for each of {dataset.classes:,} classes, got "
                f"{len(files.classes):,}: {few(files.classes)}. {dataset.guide}"
            )
        if empty := [name for name, n in files.counts() if not n]:
            raise UserError(
                f"{files.folder}: expected images in every class, got none in {few(empty)}. "
                f"Their names have to end in {', '.join(ENDINGS)}."
            )
    if only := sorted(set(train.classes) ^ set(validation.classes)):
        raise UserError(
            f"{train.folder.parent}: expected the same classes in train and val, got "
            f"{few(only)} in one of them only. {dataset.guide}"
        )
    for files, images, even in (
        (train, dataset.train_images, None),
        (validation, dataset.validation_images, dataset.even),
    ):
        if len(files) != images:
            wrong = [f"{n} in {name}" for name, n in files.counts() if n != even]
            uneven = f" ({few(wrong)}, not {even})" if even and wrong else ""
            raise UserError(
                f"{files.folder}: expected {images:,} images, got {len(files):,}{uneven}. "
                f"{dataset.guide}"
            )
