"""Data sets in memory: composed once into a file, then read by every training."""

import hashlib
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_ablation.study.datasets import ClutteredDigits, ImageNet
from attention_ablation.study.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """images: (N, C, H, W) uint8, C 1 or 3. labels: (N,) int64.

    boxes: (N, 4) x0, y0, x1, y1 around the target, in px, int16, x1 and y1 exclusive; None where
    the data set has none. They stay on the CPU: training does not look at them.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor | None = None

    def to(self, device: torch.device) -> "ImageSet":
        """Return the set on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.boxes)


@dataclass(frozen=True)
class ImageData:
    """A data set's two splits, its classes, and the training images' mean and spread (0 to 1)."""

    train: ImageSet
    validation: ImageSet
    classes: int
    mean: float
    std: float
    fingerprint: str
    composed_with: str | None = None  # packages and versions; None where nothing says so


def network_input(images: Tensor, mean: float, std: float) -> Tensor:
    """Return what a network sees of images: (N, C, H, W) uint8 -> (N, 3, H, W), normalised."""
    colour = images.float().div_(255).sub_(mean).div_(std).expand(-1, 3, -1, -1)
    return colour.contiguous(memory_format=torch.channels_last)


def prepare(dataset: ClutteredDigits | ImageNet, folder: Path) -> Path:
    """Compose a data set into `folder` unless it is there, and return the file's path.

    Raises UserError for a data set whose loader is not part of this version.
    """
    if not isinstance(dataset, ClutteredDigits):
        raise UserError(
            f"data set '{dataset.name}': its loader is not part of this version; "
            "choose a tier with 'cluttered-digits', such as quick."
        )
    path = folder / dataset.prepared
    if path.exists():
        return path
    # Imported here: scikit-learn costs a second, and only the first training composes.
    from attention_ablation.data.digits import compose

    train = compose(dataset, "train", range(dataset.train_images))
    validation = compose(dataset, "validation", range(dataset.validation_images))
    arrays: dict[str, Any] = {"train_" + k: v for k, v in vars(train).items()}
    arrays |= {"validation_" + k: v for k, v in vars(validation).items()}
    versions = [f"{name} {version(name)}" for name in ("numpy", "scikit-learn", "torch")]
    arrays["composed_with"] = np.array(", ".join(versions))
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}_{path.name}")
    np.savez(part, **arrays)
    part.replace(path)
    return path


def load(dataset: ClutteredDigits | ImageNet, folder: Path) -> ImageData:
    """Return a data set in memory, composing it first where that was not done."""
    path = prepare(dataset, folder)
    digest = hashlib.sha256()
    with np.load(path) as arrays:

        def read(split: str) -> ImageSet:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            digest.update(images)
            digest.update(labels)
            # Not in the fingerprint, because no result of a training depends on them.
            name = f"{split}_boxes"
            boxes = torch.from_numpy(arrays[name]) if name in arrays else None
            return ImageSet(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels), boxes)

        train, validation = read("train"), read("validation")
        # A file composed by an earlier version does not say so.
        composed_with = str(arrays["composed_with"]) if "composed_with" in arrays else None
    pixels = train.images.numpy()
    return ImageData(
        train,
        validation,
        classes=dataset.classes,
        mean=float(pixels.mean() / 255),
        std=float(pixels.std() / 255),
        fingerprint=digest.hexdigest()[:16],
        composed_with=composed_with,
    )
