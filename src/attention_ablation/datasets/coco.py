"""COCO 2014 (Lin et al. 2014): train and 35k of val to train on, 5k of val, minival, to evaluate.

Training leaves out crowds and boxes without area, and clips the others to their images, as the
Faster R-CNN code behind the protocol does (Chen & Gupta 2017), which trains on crowds, though.
Evaluation has every annotation as it lies in the file, as COCO's own does.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import DetectionDataset, required
from attention_ablation.datasets.folders import Folders
from attention_ablation.datasets.reading.boxes import Annotation, ImageRecord, boxed_data
from attention_ablation.datasets.reading.coco_file import Instances, Listed, read_instances
from attention_ablation.datasets.reading.data import DetectionData

MINIVAL = 5_000
# Files that say which images of val are minival. The images of val2017 are the same ones.
MINIVAL_LISTS = ("instances_minival2014.json", "instances_val2017.json")
REST_LIST = "instances_valminusminival2014.json"


class Coco(DetectionDataset):
    """COCO 2014: train and 35k of val to train on, minival (5k) to evaluate; 80 classes."""

    in_memory: ClassVar = False
    lists: ClassVar = (
        "coco2014/annotations/instances_train2014.json",
        "coco2014/annotations/instances_val2014.json",
    )
    classes: ClassVar = 80
    train_images: ClassVar = 82_783 + 35_504  # of train, of valminusminival
    validation_images: ClassVar = MINIVAL

    name: Literal["coco2014"]
    image_size: int = Field(600, ge=32, description="Shorter side, px.")
    longest: int = Field(1000, ge=32, description="Longer side at most, px.")

    @property
    def longest_side(self) -> int:
        """At most so many px."""
        return self.longest

    def load(self, folders: Folders) -> DetectionData:
        """Return the data set; labels count its categories by their ids, from 1.

        Raises UserError for files that are missing or broken, and for lists that do not fit the
        images.
        """
        root = self.place(folders)
        annotations = root / "annotations"
        train_file, val_file = (required(folders.datasets / name) for name in self.lists)
        val = read_instances(val_file, Instances)
        categories = sorted((category.id, category.name) for category in val.categories)
        labels = {category: label for label, (category, _) in enumerate(categories, start=1)}
        if len(labels) < len(categories):
            raise UserError(
                f"{val_file}: expected categories with ids of their own. Fetch it again."
            )
        notes: list[str] = []
        val_ids = [image.id for image in val.images]
        held_out, rest, derived = _minival(val_ids, annotations, notes)
        validation = _records(val, held_out, root / "val2014", labels, val_file)
        train = _records(val, rest, root / "val2014", labels, val_file)
        del val  # not beside the larger file
        records = read_instances(train_file, Instances)
        chosen = {image.id for image in records.images}
        train = _records(records, chosen, root / "train2014", labels, train_file) + train
        return boxed_data(
            self,
            root,
            _trainable(train, notes),
            validation,
            tuple(name for _, name in categories),
            notes,
            "-derived-minival" if derived else "",
        )


def derived_minival(image_ids: Iterable[int], count: int) -> set[int]:
    """Return the `count` ids whose decimal text has the least SHA-256: the same ones everywhere."""
    return set(sorted(image_ids, key=lambda i: hashlib.sha256(str(i).encode()).digest())[:count])


def _minival(
    val_ids: list[int], annotations: Path, notes: list[str]
) -> tuple[set[int], set[int], bool]:
    """Return val's images to evaluate and to train on, and whether no public list chose them.

    Only the ids are taken from a list: its annotations may differ from those of val2014.
    """
    listed = next((annotations / n for n in MINIVAL_LISTS if (annotations / n).exists()), None)
    if listed:
        held_out = _listed(listed, val_ids)
    elif len(val_ids) > MINIVAL:
        held_out = derived_minival(val_ids, MINIVAL)
        notes.append(
            f"minival is not the public one: neither {' nor '.join(MINIVAL_LISTS)} is in "
            f"{annotations}, so {MINIVAL:,} images were chosen by a rule of our own"
        )
    else:
        raise UserError(
            f"{annotations}: expected {' or '.join(MINIVAL_LISTS)}, or more than {MINIVAL:,} "
            f"images in instances_val2014.json to choose minival from; got {len(val_ids):,}."
        )
    rest = set(val_ids) - held_out
    if (annotations / REST_LIST).exists():
        rest = _listed(annotations / REST_LIST, val_ids)
        if both := rest & held_out:
            raise UserError(
                f"{annotations / REST_LIST}: expected no image of minival, got {len(both):,}, such "
                f"as {min(both)}. Fetch both lists again, or remove this one."
            )
    return held_out, rest, listed is None


def _listed(path: Path, val_ids: list[int]) -> set[int]:
    ids = {image.id for image in read_instances(path, Listed).images}
    if strange := ids - set(val_ids):
        raise UserError(
            f"{path}: expected images of instances_val2014.json, got {len(strange):,} others, such "
            f"as {min(strange)}."
        )
    return ids


def _records(
    data: Instances, chosen: set[int], folder: Path, labels: dict[int, int], path: Path
) -> list[ImageRecord]:
    """Return the chosen images by their ids, with every annotation as it is in the file."""
    objects = defaultdict(list)
    known = {image.id for image in data.images}
    for annotation in data.annotations:
        if annotation.image_id not in known:
            raise UserError(
                f"{path}: annotation {annotation.id}: expected an image of the file, got "
                f"image_id {annotation.image_id}. Fetch the file again."
            )
        if annotation.image_id in chosen:
            x, y, width, height = annotation.bbox
            if width < 0 or height < 0:
                raise UserError(
                    f"{path}: annotation {annotation.id}: expected a width and height of 0 or "
                    f"more, got {width:g} and {height:g}. Fetch the file again, or correct it."
                )
            if annotation.category_id not in labels:
                raise UserError(
                    f"{path}: annotation {annotation.id}: expected a category of "
                    f"instances_val2014.json, got {annotation.category_id}. Fetch both files again."
                )
            box, label = (x, y, x + width, y + height), labels[annotation.category_id]
            objects[annotation.image_id].append(
                Annotation(box, label, annotation.area, crowd=bool(annotation.iscrowd))
            )
    return [
        ImageRecord(
            folder / image.file_name, image.id, image.width, image.height, objects[image.id]
        )
        for image in sorted(data.images, key=lambda image: image.id)
        if image.id in chosen
    ]


def _trainable(records: list[ImageRecord], notes: list[str]) -> list[ImageRecord]:
    """Return the records without crowds and bad boxes, the other boxes inside their images."""
    result, crowds, empty, clipped = [], 0, 0, 0
    for record in records:
        kept = []
        for a in record.objects:
            x0, y0 = max(a.box[0], 0.0), max(a.box[1], 0.0)
            x1, y1 = min(a.box[2], float(record.width)), min(a.box[3], float(record.height))
            if a.crowd:
                crowds += 1
            elif a.area <= 0 or x0 >= x1 or y0 >= y1:
                empty += 1
            else:
                box = (x0, y0, x1, y1)
                clipped += box != a.box
                kept.append(a if box == a.box else a._replace(box=box))
        result.append(record._replace(objects=kept))
    if crowds:
        notes.append(f"crowds left out of training: {crowds}")
    if empty:
        notes.append(f"boxes without area or outside their image left out of training: {empty}")
    if clipped:
        notes.append(f"training boxes clipped to their images: {clipped}")
    return result
