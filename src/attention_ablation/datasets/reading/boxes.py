"""Images and their objects: as annotation files say, in memory, and read one at a time.

torch is imported where it is used, so that the records may import this.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import IMAGENET_MEAN, IMAGENET_STD, DetectionDataset
from attention_ablation.datasets.reading.data import DetectionData, Target, fingerprint

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in px, x1 and y1 exclusive


class Annotation(NamedTuple):
    """One object; labels count from 1."""

    box: Box
    label: int
    area: float  # px: of the object's outline where the data set has one, else of the box
    difficult: bool = False
    crowd: bool = False


class ImageRecord(NamedTuple):
    """An image's file, number, size in px as its annotation has it, and objects."""

    path: Path
    image_id: int
    width: int
    height: int
    objects: list[Annotation]

    def clip(self, box: Box) -> Box | None:
        """Return what of a box is inside the image, None where that has no area."""
        x0, y0 = max(box[0], 0.0), max(box[1], 0.0)
        x1, y1 = min(box[2], self.width), min(box[3], self.height)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


@dataclass(frozen=True)
class _Boxed:
    """The objects of N images, one image after the other; those of image i start at starts[i].

    Flat, because the processes that load images share a few tensors, and would copy many records.
    image_ids: (N,) int64. starts: (N + 1,) int64. objects: of all M together, boxes (M, 4) and
    area (M,) float32, labels (M,) int64, difficult and crowd (M,) bool.
    """

    image_ids: Tensor
    starts: Tensor
    objects: Target

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Return an image, (3, H, W) uint8, and its target in torchvision's form."""
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        # Copies: a view that is sent to another process takes the whole tensor along.
        target = {name: values[rows].clone() for name, values in self.objects.items()}
        return self.image(index), target | {"image_id": self.image_ids[index].clone()}

    def image(self, index: int) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class SceneSet(_Boxed):
    """Scenes in memory: images (N, S, S) uint8, grey."""

    images: Tensor

    @classmethod
    def of(cls, images: Tensor, starts: Tensor, boxes: Tensor, labels: Tensor) -> SceneSet:
        """Return scenes numbered from 0 of objects that all count."""
        import torch

        corners = boxes.float()
        area = (corners[:, 2:] - corners[:, :2]).prod(1)
        no = torch.zeros(len(labels), dtype=torch.bool)
        objects = {"boxes": corners, "labels": labels, "area": area, "difficult": no, "crowd": no}
        return cls(torch.arange(len(images)), starts, objects, images)

    def image(self, index: int) -> Tensor:
        return self.images[index].repeat(3, 1, 1)


@dataclass(frozen=True)
class BoxedImages(_Boxed):
    """The images of a split on disk. files: paths, and width and height as annotated, px."""

    files: tuple[tuple[str, tuple[int, int]], ...]

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> BoxedImages:
        import torch

        flat = [annotation for record in records for annotation in record.objects]
        return cls(
            torch.tensor([record.image_id for record in records], dtype=torch.int64),
            torch.tensor([0, *(len(record.objects) for record in records)]).cumsum(0),
            {
                "boxes": torch.tensor([a.box for a in flat], dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor([a.label for a in flat], dtype=torch.int64),
                "area": torch.tensor([a.area for a in flat], dtype=torch.float32),
                "difficult": torch.tensor([a.difficult for a in flat], dtype=torch.bool),
                "crowd": torch.tensor([a.crowd for a in flat], dtype=torch.bool),
            },
            tuple((str(r.path), (r.width, r.height)) for r in records),
        )

    def image(self, index: int) -> Tensor:
        from attention_ablation.datasets.reading.decode import read_image

        return read_image(*self.file(index))

    def file(self, index: int) -> tuple[Path, tuple[int, int]]:
        """Return an image's path, and its width and height in px as its annotation has them."""
        path, size = self.files[index]
        return Path(path), size

    def digest(self) -> bytes:
        """Return a digest of the annotations and of the files' names and sizes in bytes."""
        annotations = hashlib.sha256()
        content: Any = (self.image_ids, self.starts, *self.objects.values())
        for values in content:
            annotations.update(values.numpy())
        digest = hashlib.sha256(annotations.digest())
        missing = []
        for path in (Path(name) for name, _ in self.files):
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


def boxed_data(
    dataset: DetectionDataset,
    root: Path,
    train: list[ImageRecord],
    validation: list[ImageRecord],
    classes: tuple[str, ...],
    notes: list[str],
    suffix: str = "",
) -> DetectionData:
    """Return a data set of image files from its records, without training images of no object.

    notes: of what was left out or changed; these go on here. suffix: of the fingerprint, which is
    of the annotations and the files' names and sizes. Raises UserError for an image that is there
    twice, and where images are missing or none has an object.
    """
    times = Counter(record.image_id for record in (*train, *validation))
    if twice := [image for image, n in times.items() if n > 1]:
        raise UserError(
            f"{root}: expected every image once, to train on or to evaluate, got {len(twice):,} "
            f"again, such as {twice[0]}. Fetch the lists again."
        )
    for split, found, images in (
        ("training", train, dataset.train_images),
        ("validation", validation, dataset.validation_images),
    ):
        if len(found) != images:
            notes.append(f"{split} images: {len(found):,}, where the data set has {images:,}")
    trainable = [record for record in train if record.objects]
    if not trainable:
        raise UserError(
            f"expected training images with objects, got {len(train)} images without any; "
            "docs/detection-data.md says what the files hold."
        )
    if empty := len(train) - len(trainable):
        notes.append(f"training images without an object left out: {empty}")
    sets = BoxedImages.of(trainable), BoxedImages.of(validation)
    return DetectionData(
        *sets,
        classes,
        IMAGENET_MEAN,
        IMAGENET_STD,
        fingerprint(sets[0].digest() + sets[1].digest()) + suffix,
        skipped="; ".join(notes),
    )
