"""Data sets as a training has them: small ones in memory, image files as a list."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.composed import composed_arrays
from attention_ablation.datasets.files import GUIDE, ImageFiles, list_files, refused
from attention_ablation.datasets.records import Cifar, ClutteredDigits, Dataset


@dataclass(frozen=True)
class ImageSet:
    """images: (N, C, H, W) uint8, C 1 or 3. labels: (N,) int64.

    boxes: (N, 4) x0, y0, x1, y1 around the target, in px, int16, x1 and y1 exclusive; None where
    the data set has none. They stay on the CPU: training does not look at them.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ImageSet":
        """Return the set on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.boxes)


@dataclass(frozen=True)
class ImageData:
    """A data set's two splits, its classes, and the training images' mean and spread (0 to 1).

    The last two are of all channels, or (C, 1, 1), of each.
    """

    train: ImageSet
    validation: ImageSet
    classes: int
    mean: float | Tensor
    std: float | Tensor
    fingerprint: str
    composed_with: str | None = None  # packages and versions; None for images that were not


def network_input(images: Tensor, mean: float | Tensor, std: float | Tensor) -> Tensor:
    """Return what a network sees of images: (N, C, H, W) uint8 -> (N, 3, H, W), normalised.

    Args:
        mean: of all channels, or (3, 1, 1), of each; on the scale from 0 to 1.
        std: likewise.
    """
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        # Line by line, each with a mean for every number in it: with three numbers at a time, as
        # channels lie in memory, it takes twice as long.
        n, channels, height, width = images.shape
        lines = images.permute(0, 2, 3, 1).reshape(n, height, width * channels).float()
        lines.sub_((255 * mean).flatten().repeat(width)).div_((255 * std).flatten().repeat(width))
        return lines.view(n, height, width, channels).permute(0, 3, 1, 2)
    colour = images.float().div_(255).sub_(mean).div_(std).expand(-1, 3, -1, -1)
    return colour.contiguous(memory_format=torch.channels_last)


@refused()
def load(dataset: Dataset, folder: Path, datasets: Path | None = None) -> ImageData | ImageFiles:
    """Return a data set: composed first, or held to what it should have.

    Args:
        folder: where composed data sets and lists of files are kept.
        datasets: the folder that has each other data set by its name; None: the same.

    Raises UserError for a data set that is not there or not as it should be.
    """
    if isinstance(dataset, ClutteredDigits):
        return _load_composed(dataset, folder)
    if isinstance(dataset, Cifar):
        return _load_cifar(dataset, datasets or folder)
    return list_files(dataset, datasets or folder, cache=folder)


def _load_composed(dataset: ClutteredDigits, folder: Path) -> ImageData:
    arrays = composed_arrays(dataset, folder)
    digest = hashlib.sha256()

    def read(split: str) -> ImageSet:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        digest.update(images.data)
        digest.update(labels.data)
        # Not in the fingerprint, because no result of a training depends on them.
        boxes = torch.from_numpy(arrays[f"{split}_boxes"])
        return ImageSet(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels), boxes)

    train, validation = read("train"), read("validation")
    pixels = train.images.numpy()
    return ImageData(
        train,
        validation,
        classes=dataset.classes,
        mean=float(pixels.mean() / 255),
        std=float(pixels.std() / 255),
        fingerprint=digest.hexdigest()[:16],
        composed_with=str(arrays["composed_with"]),
    )


def _load_cifar(dataset: Cifar, datasets: Path) -> ImageData:
    # Imported here: torchvision's data sets are of no use to the other trainings.
    from torchvision.datasets import CIFAR10, CIFAR100

    root = datasets / dataset.name
    kind = CIFAR10 if dataset.name == "cifar10" else CIFAR100
    digest = hashlib.sha256()

    def read(train: bool, expected: int) -> ImageSet:
        try:
            found = kind(root, train)  # it holds every file to its MD5 sum before it reads any
        except RuntimeError as error:
            raise UserError(
                f"{root}: expected {kind.base_folder} with the files of "
                f"{kind.filename}, unchanged; they are missing or damaged ({error}). "
                f"attention-ablation data download {dataset.name} fetches them. {GUIDE}"
            ) from None
        if len(found.data) != expected or len(found.classes) != dataset.classes:
            raise UserError(
                f"{root / kind.base_folder}: expected {expected:,} images of {dataset.classes} "
                f"classes, got {len(found.data):,} of {len(found.classes)}. {GUIDE}"
            )
        images = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
        labels = np.array(found.targets, np.int64)
        digest.update(images.data)
        digest.update(labels.data)
        return ImageSet(torch.from_numpy(images), torch.from_numpy(labels))

    train = read(True, dataset.train_images)
    validation = read(False, dataset.validation_images)
    pixels = train.images.numpy()
    return ImageData(
        train,
        validation,
        classes=dataset.classes,
        mean=_of_channels(pixels.mean(axis=(0, 2, 3)) / 255),
        std=_of_channels(pixels.std(axis=(0, 2, 3)) / 255),
        fingerprint=digest.hexdigest()[:16],
    )


def _of_channels(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
