"""Detection data sets: images and the boxes and classes of the objects on them."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.annotations import Annotations, Target
from attention_ablation.datasets.composed import composed_arrays
from attention_ablation.datasets.files import refused
from attention_ablation.datasets.records import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ClutteredScenes,
    Coco,
    Voc,
)

Colour = tuple[float, float, float]


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


@dataclass(frozen=True)
class SceneSet:
    """Scenes in memory: images (N, S, S) uint8."""

    images: Tensor
    annotations: Annotations

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Return (3, S, S) uint8, the grey level thrice, and the target."""
        return self.images[index].repeat(3, 1, 1), self.annotations.target(index)


@refused()
def load_detection(
    dataset: ClutteredScenes | Voc | Coco, data_folder: Path, composed_folder: Path
) -> DetectionData:
    """Return a detection data set.

    data_folder: where VOCdevkit/ or coco2014/ lies. composed_folder: where
    composed scenes are kept. Raises UserError for data that are missing or broken.
    """
    if isinstance(dataset, ClutteredScenes):
        return _load_scenes(dataset, composed_folder)
    return _load_files(dataset, data_folder)


def _load_scenes(dataset: ClutteredScenes, folder: Path) -> DetectionData:
    arrays = composed_arrays(dataset, folder)
    digest = hashlib.sha256()

    def read(split: str) -> SceneSet:
        images, starts, boxes, labels = (
            arrays[f"{split}_{name}"] for name in ("images", "starts", "boxes", "labels")
        )
        for values in (images, starts, boxes, labels):
            digest.update(values.data)
        corners = torch.from_numpy(boxes).float()
        no = torch.zeros(len(labels), dtype=torch.bool)
        annotations = Annotations(
            image_ids=torch.arange(len(images)),
            starts=torch.from_numpy(starts),
            boxes=corners,
            labels=torch.from_numpy(labels),
            area=(corners[:, 2:] - corners[:, :2]).prod(1),
            difficult=no,
            crowd=no,
        )
        return SceneSet(torch.from_numpy(images), annotations)

    train, validation = read("train"), read("validation")
    pixels = train.images.numpy()
    mean, std = float(pixels.mean() / 255), float(pixels.std() / 255)
    return DetectionData(
        train,
        validation,
        classes=tuple(str(digit) for digit in range(dataset.classes)),
        mean=(mean, mean, mean),
        std=(std, std, std),
        fingerprint=digest.hexdigest()[:16],
        composed_with=str(arrays["composed_with"]),
    )


def _load_files(dataset: Voc | Coco, folder: Path) -> DetectionData:
    # Imported here: a training on scenes needs neither.
    from attention_ablation.datasets import coco, voc
    from attention_ablation.datasets.image_files import ImageFiles, with_objects

    suffix = ""
    if isinstance(dataset, Voc):
        train, validation, notes = voc.read_voc(folder)
        classes = voc.CLASSES
    else:
        train, validation, classes, derived, notes = coco.read_coco(folder / "coco2014")
        suffix = "-derived-minival" if derived else ""
    times = Counter(record.image_id for record in (*train, *validation))
    if twice := [image for image, n in times.items() if n > 1]:
        raise UserError(
            f"{folder}: expected every image once, to train on or to evaluate, got {len(twice):,} "
            f"again, such as {twice[0]}. Fetch the lists again."
        )
    for split, records, images in (
        ("training", train, dataset.train_images),
        ("validation", validation, dataset.validation_images),
    ):
        if len(records) != images:
            notes.append(f"{split} images: {len(records):,}, where the data set has {images:,}")
    sets = ImageFiles.of(with_objects(train, notes)), ImageFiles.of(validation)
    digest = hashlib.sha256(sets[0].digest() + sets[1].digest())
    return DetectionData(
        *sets,
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        fingerprint=digest.hexdigest()[:16] + suffix,
        skipped="; ".join(notes),
    )
