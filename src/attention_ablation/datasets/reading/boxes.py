"""Images on disk with their objects, as annotation files say, and what is checked of all sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import IMAGENET_MEAN, IMAGENET_STD, DetectionDataset
from attention_ablation.datasets.reading.data import DetectionData, fingerprint


class Annotation(NamedTuple):
    """One object: box x0, y0, x1, y1 in px of its image, x1 and y1 exclusive; label from 1."""

    box: tuple[float, float, float, float]
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


def boxed_data(
    dataset: DetectionDataset,
    root: Path,
    train: list[ImageRecord],
    validation: list[ImageRecord],
    classes: tuple[str, ...],
    notes: list[str],
    suffix: str = "",
) -> DetectionData:
    """Return a data set of image files from its records.

    Training images without an object are left out, since nothing trains on them. notes: of what was
    left out or changed; these go on here. suffix: of the fingerprint, which is of the annotations
    and the files' names and sizes.

    Raises UserError, about `root`, for an image that is there twice, and where images are missing
    or none has an object.
    """
    from attention_ablation.datasets.reading.boxed_images import BoxedImages

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
