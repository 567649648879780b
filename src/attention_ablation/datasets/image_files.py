"""Images that are read from their files, one at a time, and the objects on them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.annotations import Annotation, Annotations, Target
from attention_ablation.datasets.images import read_image


class ImageRecord(NamedTuple):
    """An image's file, number, size in px as its annotation has it, and objects."""

    path: Path
    image_id: int
    width: int
    height: int
    objects: list[Annotation]


@dataclass(frozen=True)
class ImageFiles:
    """The images of a split. sizes: width and height of each, px."""

    paths: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    annotations: Annotations

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> "ImageFiles":
        """Return the images of these records, in their order."""
        annotations = Annotations.of([r.image_id for r in records], [r.objects for r in records])
        sizes = tuple((r.width, r.height) for r in records)
        return cls(tuple(str(r.path) for r in records), sizes, annotations)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Return (3, H, W) uint8 and the target.

        Raises UserError for an image that does not decode or is not of its annotation's size.
        """
        image = read_sized(Path(self.paths[index]), self.sizes[index])
        return image, self.annotations.target(index)

    def digest(self) -> bytes:
        """Return a digest of the annotations and of the files' names and sizes in bytes.

        Raises UserError where files are missing, naming the first and saying how many.
        """
        digest = hashlib.sha256(self.annotations.digest())
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


def read_sized(path: Path, size: tuple[int, int]) -> Tensor:
    """Return a file's image, (3, H, W) uint8, of this width and height in px.

    Raises UserError for another size, and as `read_image`.
    """
    image = read_image(path)
    height, width = image.shape[1:]
    if (width, height) != size:
        raise UserError(
            f"{path}: expected {size[0]} x {size[1]} px, as its annotation says, got {width} x "
            f"{height}: its boxes are for another image. Fetch both again."
        )
    return image


def with_objects(records: list[ImageRecord], notes: list[str]) -> list[ImageRecord]:
    """Return the images that have an object; others are counted in `notes`: nothing trains on them.

    Raises UserError where none has.
    """
    kept = [record for record in records if record.objects]
    if not kept:
        raise UserError(
            f"expected training images with objects, got {len(records)} images without any; "
            "docs/detection-data.md says what the files hold."
        )
    if len(kept) < len(records):
        notes.append(f"training images without an object left out: {len(records) - len(kept)}")
    return kept
