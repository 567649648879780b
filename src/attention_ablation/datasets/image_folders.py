"""Image files in a folder for each class: ImageNet, Imagenette, and a user's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from attention_ablation.base.errors import UserError, few
from attention_ablation.datasets.contract import Dataset
from attention_ablation.datasets.folders import Folders
from attention_ablation.datasets.reading.data import ImageData

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

    def place(self, folders: Folders) -> Path:
        """Return where it lies."""
        return folders.datasets / self.folder

    def require(self, datasets: Path) -> None:
        """Raise UserError where the folder, or that of a split, is not there."""
        root = datasets / self.folder
        if all((root / split).is_dir() for split in ("train", "val")):
            return
        there = sorted(path.name for path in root.iterdir()) if root.is_dir() else None
        found = f"got {few(there)}" if there else "got an empty folder"
        found = "there is no such folder" if there is None else found
        hint = ""
        if there and any(name.startswith("ILSVRC2012") for name in there):
            hint = " Unpack the archives: attention-ablation data download imagenet."
        raise UserError(
            f"{root}: expected the folders train and val with a folder for each of "
            f"{self.classes:,} classes, {found}.{hint} {self.guide}"
        )

    def load(self, folders: Folders) -> ImageData:
        """Return the lists of its files."""
        from attention_ablation.datasets.reading.class_folders import list_files

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

        for split in ("train", "val"):
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
        """Where it lies below the folder of the data sets, as torchvision unpacks it."""
        suffix = "" if self.size == "full" else "-" + self.size.removesuffix("px")
        return f"imagenette/imagenette2{suffix}"

    @classmethod
    def download(cls, name: str, folder: Path) -> None:
        """Fetch the archive of a size and unpack it."""
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
