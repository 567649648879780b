"""Images and the objects on them: in memory, or read from their files one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.reading.boxes import ImageRecord
from attention_ablation.datasets.reading.data import Target
from attention_ablation.datasets.reading.decode import read_image


@dataclass(frozen=True)
class Annotations:
    """The objects of N images, one image after the other; those of image i start at starts[i].

    Flat, because the processes that load images share a few tensors, and would copy many records.
    image_ids: (N,) int64. starts: (N + 1,) int64. boxes: (M, 4) float32. labels: (M,) int64.
    area: (M,) float32. difficult, crowd: (M,) bool.
    """

    image_ids: Tensor
    starts: Tensor
    boxes: Tensor
    labels: Tensor
    area: Tensor
    difficult: Tensor
    crowd: Tensor

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> Annotations:
        """Return the objects of records."""
        flat = [annotation for record in records for annotation in record.objects]
        counts = torch.tensor([0, *(len(record.objects) for record in records)])
        return cls(
            torch.tensor([record.image_id for record in records], dtype=torch.int64),
            counts.cumsum(0),
            torch.tensor([a.box for a in flat], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([a.label for a in flat], dtype=torch.int64),
            torch.tensor([a.area for a in flat], dtype=torch.float32),
            torch.tensor([a.difficult for a in flat], dtype=torch.bool),
            torch.tensor([a.crowd for a in flat], dtype=torch.bool),
        )

    def target(self, index: int) -> Target:
        """Return the objects of one image, in torchvision's form."""
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        of_objects = ("boxes", "labels", "area", "difficult", "crowd")
        # Copies: a view that is sent to another process takes the whole tensor along.
        target = {name: getattr(self, name)[rows].clone() for name in of_objects}
        return target | {"image_id": self.image_ids[index].clone()}


@dataclass(frozen=True)
class SceneSet:
    """Scenes in memory: images (N, S, S) uint8."""

    images: Tensor
    annotations: Annotations

    @classmethod
    def of(cls, images: Tensor, starts: Tensor, boxes: Tensor, labels: Tensor) -> SceneSet:
        """Return scenes numbered from 0 of objects that all count."""
        corners = boxes.float()
        area = (corners[:, 2:] - corners[:, :2]).prod(1)
        no = torch.zeros(len(labels), dtype=torch.bool)
        numbers = torch.arange(len(images))
        return cls(images, Annotations(numbers, starts, corners, labels, area, no, no))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Return (3, S, S) uint8, the grey level thrice, and the target."""
        return self.images[index].repeat(3, 1, 1), self.annotations.target(index)


@dataclass(frozen=True)
class BoxedImages:
    """The images of a split on disk. sizes: width and height of each, px."""

    paths: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    annotations: Annotations

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> BoxedImages:
        """Return the images of these records, in their order."""
        sizes = tuple((r.width, r.height) for r in records)
        return cls(tuple(str(r.path) for r in records), sizes, Annotations.of(records))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Return (3, H, W) uint8 and the target.

        Raises UserError for an image that does not decode or is not of its annotation's size.
        """
        return read_image(*self.file(index)), self.annotations.target(index)

    def path(self, index: int) -> Path:
        """Return an image's path."""
        return Path(self.paths[index])

    def file(self, index: int) -> tuple[Path, tuple[int, int]]:
        """Return an image's path, and its width and height in px as its annotation has them."""
        return self.path(index), self.sizes[index]

    def digest(self) -> bytes:
        """Return a digest of the annotations and of the files' names and sizes in bytes.

        Raises UserError where files are missing, naming the first and saying how many.
        """
        annotations = hashlib.sha256()
        for values in vars(self.annotations).values():
            annotations.update(values.numpy())
        digest = hashlib.sha256(annotations.digest())
        missing = []
        for path in map(Path, self.paths):
            try:
                digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            except (FileNotFoundError, NotADirectoryError):
                missing.append(path)
        if missing:
            raise UserError(
                f"{missing[0]}: the image is missing; {len(missing)} of {len(self)} are. "
                "Unpack the data set's archives again; docs/detection-data.md says where."
            )
        return digest.digest()
