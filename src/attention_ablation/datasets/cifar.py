"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), 32x32 px in colour, as torchvision reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import Dataset, Folders
from attention_ablation.datasets.reading.data import ImageData, ImageSet, of_memory


class _Cifar(Dataset):
    augmentations: ClassVar = ("none", "pad-crop-flip")
    in_memory: ClassVar = True
    image_size: ClassVar = 32
    train_images: ClassVar = 50_000
    validation_images: ClassVar = 10_000

    @classmethod
    def download(cls, name: str, folder: Path) -> None:
        _torchvisions(name)(folder, download=True)

    def load(self, folders: Folders) -> ImageData:
        root = self.place(folders)
        return of_memory(self._read(root, True), self._read(root, False), self.classes)

    def _read(self, root: Path, train: bool) -> ImageSet:
        from torch import from_numpy

        theirs = _torchvisions(self.name)
        expected = self.train_images if train else self.validation_images
        try:
            found = theirs(root, train)  # it holds every file to its MD5 sum before it reads any
        except RuntimeError as error:
            raise UserError(
                f"{root}: expected {theirs.base_folder} with the files of "
                f"{theirs.filename}, unchanged; they are missing or damaged ({error}). "
                f"attention-ablation data download {self.name} fetches them. {self.guide}"
            ) from None
        if len(found.data) != expected or len(found.classes) != self.classes:
            raise UserError(
                f"{root / theirs.base_folder}: expected {expected:,} images of {self.classes} "
                f"classes, got {len(found.data):,} of {len(found.classes)}. {self.guide}"
            )
        images = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
        return ImageSet(from_numpy(images), from_numpy(np.array(found.targets, np.int64)))


def _torchvisions(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, name.upper())


class Cifar10(_Cifar):
    """CIFAR-10: 10 classes."""

    downloads: ClassVar = ("cifar10",)
    classes: ClassVar = 10

    name: Literal["cifar10"]


class Cifar100(_Cifar):
    """CIFAR-100: its 100 fine classes."""

    downloads: ClassVar = ("cifar100",)
    classes: ClassVar = 100

    name: Literal["cifar100"]
