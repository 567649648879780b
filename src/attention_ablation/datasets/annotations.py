"""The objects on images: boxes, classes and what an evaluation has to know of each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Target = dict[str, Tensor]


class Annotation(NamedTuple):
    """One object: box x0, y0, x1, y1 in px of its image, x1 and y1 exclusive; label from 1."""

    box: tuple[float, float, float, float]
    label: int
    area: float  # px: of the object's outline where the data set has one, else of the box
    difficult: bool = False
    crowd: bool = False


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
    def of(cls, image_ids: Sequence[int], objects: Sequence[Sequence[Annotation]]) -> "Annotations":
        """Return the objects of images, given as one sequence for each."""
        flat = [annotation for of_image in objects for annotation in of_image]
        counts = torch.tensor([0, *map(len, objects)])
        return cls(
            torch.tensor(image_ids, dtype=torch.int64),
            counts.cumsum(0),
            torch.tensor([a.box for a in flat], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([a.label for a in flat], dtype=torch.int64),
            torch.tensor([a.area for a in flat], dtype=torch.float32),
            torch.tensor([a.difficult for a in flat], dtype=torch.bool),
            torch.tensor([a.crowd for a in flat], dtype=torch.bool),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def target(self, index: int) -> Target:
        """Return the objects of one image, in torchvision's form."""
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        # Copies: a view that is sent to another process takes the whole tensor along.
        return {
            "boxes": self.boxes[rows].clone(),
            "labels": self.labels[rows].clone(),
            "area": self.area[rows].clone(),
            "difficult": self.difficult[rows].clone(),
            "crowd": self.crowd[rows].clone(),
            "image_id": self.image_ids[index].clone(),
        }

    def digest(self) -> bytes:
        """Return a digest of all that is in it."""
        digest = hashlib.sha256()
        for values in vars(self).values():
            digest.update(values.numpy())
        return digest.digest()
