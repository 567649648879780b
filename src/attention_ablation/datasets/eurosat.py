"""EuroSAT (Helber et al. 2019), satellite images of 64x64 px in colour: its RGB archive.

The authors publish no split. Here an image is for validation where its number, from 1 in its
class, is a multiple of five: the same fifth of every class on every machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from attention_ablation.base.errors import UserError, few
from attention_ablation.datasets.contract import Dataset, Folders
from attention_ablation.datasets.reading.data import ImageData, ImageSet, of_memory

UNPACKED = "2750"  # the archive's only folder
SIDE = 64  # px
# A label is a class's place here; they are sorted.
IMAGES = {
    "AnnualCrop": 3_000,
    "Forest": 3_000,
    "HerbaceousVegetation": 3_000,
    "Highway": 2_500,
    "Industrial": 2_500,
    "Pasture": 2_000,
    "PermanentCrop": 2_500,
    "Residential": 3_000,
    "River": 2_500,
    "SeaLake": 3_000,
}
FIFTH = 5


class EuroSat(Dataset):
    """EuroSAT: 10 classes of land use, 27,000 images, four fifths of each class to train on."""

    augmentations: ClassVar = ("none", "pad-crop-flip")
    in_memory: ClassVar = True
    downloads: ClassVar = ("eurosat",)
    image_size: ClassVar = SIDE
    classes: ClassVar = len(IMAGES)
    train_images: ClassVar = 21_600
    validation_images: ClassVar = 5_400

    name: Literal["eurosat"]

    @classmethod
    def download(cls, name: str, folder: Path) -> None:
        from torchvision import datasets

        # It makes a folder `eurosat` itself, and leaves one alone in which `2750` is.
        datasets.EuroSAT(folder.parent, download=True)
        _check_names(folder)

    def load(self, folders: Folders) -> ImageData:
        root = self.place(folders)
        _check_names(root)
        numbered = [
            (label, number)
            for label, images in enumerate(IMAGES.values())
            for number in range(1, images + 1)
        ]
        train = _read(root, [image for image in numbered if image[1] % FIFTH])
        validation = _read(root, [image for image in numbered if not image[1] % FIFTH])
        return of_memory(train, validation, self.classes)


def _path(root: Path, label: int, number: int) -> Path:
    name = list(IMAGES)[label]
    return root / UNPACKED / name / f"{name}_{number}.jpg"


def _check_names(root: Path) -> None:
    """Raise UserError unless every class has its images, by their names, and no others."""
    for label, (name, images) in enumerate(IMAGES.items()):
        folder = _path(root, label, 1).parent
        found = {path.name for path in folder.glob("*.jpg")}
        expected = {_path(root, label, number).name for number in range(1, images + 1)}
        if found != expected:
            odd = {"without": expected - found, "with": found - expected}
            which = " and ".join(f"{word} {few(sorted(odd[word]), 3)}" for word in odd if odd[word])
            got = f"{len(found):,}, {which}" if folder.is_dir() else "no such folder"
            raise UserError(
                f"{folder}: expected the {images:,} images {name}_1.jpg to {name}_{images}.jpg, "
                f"got {got}. Remove {root / UNPACKED}, then attention-ablation data download "
                "eurosat fetches it again."
            )


def _read(root: Path, numbered: list[tuple[int, int]]) -> ImageSet:
    """Return images, given by label and number; raises UserError that names those it refuses."""
    from torch import from_numpy

    from attention_ablation.datasets.reading.decode import read_image

    pixels = np.empty((len(numbered), 3, SIDE, SIDE), np.uint8)
    refused: dict[str, str] = {}
    for place, image in enumerate(numbered):
        path = _path(root, *image)
        try:
            found = read_image(path).numpy()
            if found.shape != pixels[place].shape:
                _, height, width = found.shape
                raise UserError(f"{path}: expected {SIDE} x {SIDE} px, got {width} x {height}.")
            pixels[place] = found
        except UserError as error:
            refused[path.name] = str(error)
    if refused:
        first, *others = refused
        also = f" So it is with {few(others, 20)}." if others else ""
        raise UserError(refused[first] + also)
    labels = np.array([label for label, _ in numbered], np.int64)
    return ImageSet(from_numpy(pixels), from_numpy(labels))
