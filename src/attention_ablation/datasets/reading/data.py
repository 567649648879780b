"""Data sets as a training has them: small ones in memory, image files as a list.

torch is imported where it is used, so that the records may import this.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Target = dict[str, "Tensor"]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class ImageSet:
    """images: (N, C, H, W) uint8, C 1 or 3. labels: (N,) int64.

    boxes: (N, 4) x0, y0, x1, y1 around the target, in px, int16, x1 and y1 exclusive; None where
    the data set has none. They stay on the CPU: no training reads them.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> ImageSet:
        return ImageSet(self.images.to(device), self.labels.to(device), self.boxes)


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
        from attention_ablation.datasets.reading.decode import read_image

        return read_image(self.path(index)), int(self.labels[index])

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(bytes(self.names[index]))

    def file(self, index: int) -> tuple[Path, None]:
        """Return the path of a file; no annotation says its size in px."""
        return self.path(index), None

    def counts(self) -> list[tuple[str, int]]:
        """Return each class and how many images it has."""
        images = np.bincount(self.labels, minlength=len(self.classes))
        return list(zip(self.classes, images.tolist(), strict=True))


@dataclass(frozen=True)
class ImageData:
    """A data set's two splits, its classes, and the training images' mean and spread (0 to 1).

    Both splits are in memory, or lists of files. mean, std: of all channels, or (C, 1, 1), of each.
    """

    train: ImageSet | FileList
    validation: ImageSet | FileList
    classes: int
    mean: float | Tensor
    std: float | Tensor
    fingerprint: str
    composed_with: str | None = None  # packages and versions; None for images that were not


class DetectionSet(Protocol):
    """Images, (3, H, W) uint8, each with its target.

    A target has boxes (n, 4) float32 x0, y0, x1, y1 in px of the image, x1 and y1 exclusive;
    labels (n,) int64 from 1; difficult and crowd (n,) bool, objects that an evaluation counts
    neither as found nor as missed; area (n,) float32, px; image_id, an int64 scalar.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Target]: ...


@dataclass(frozen=True)
class DetectionData:
    """A data set's two splits, its classes without the background, and how to normalise it.

    mean, std: of the three colours, 0 to 1. skipped: what was left out or changed, and how often;
    empty if nothing.
    """

    train: DetectionSet
    validation: DetectionSet
    classes: tuple[str, ...]
    mean: Colour
    std: Colour
    fingerprint: str
    composed_with: str | None = None  # packages and versions; None for images that were not
    skipped: str = ""


def of_channels(values: Sequence[float]) -> Tensor:
    """Return numbers, one a channel, as they are applied to images: (C, 1, 1) float32."""
    import torch

    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def of_memory(train: ImageSet, validation: ImageSet, classes: int) -> ImageData:
    """Return a data set of two splits of colour images in memory, and its fingerprint.

    That is of all pixels and labels, split by split, so that another split has another one.
    """
    # Channel by channel: numpy's spread takes eight bytes for each pixel.
    channels = train.images.numpy().swapaxes(0, 1)
    mean, std = (of_channels([f(c) / 255 for c in channels]) for f in (np.mean, np.std))
    read = (t.numpy() for s in (train, validation) for t in (s.images, s.labels))
    return ImageData(train, validation, classes, mean, std, fingerprint(*read))


def fingerprint(*content: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of arrays or bytes."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    return digest.hexdigest()[:16]
