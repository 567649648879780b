"""COCO 2014 (Lin et al. 2014): train and 35k of val to train on, 5k of val, minival, to evaluate.

Training leaves out crowds and boxes without area, and clips the others to their images, as the
Faster R-CNN code behind the protocol does (Chen & Gupta 2017), which trains on crowds, though.
Evaluation has every annotation as it lies in the file, as COCO's own does.
"""

from __future__ import annotations

import hashlib
import reprlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import FailFast, Field, TypeAdapter, ValidationError

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes
from attention_ablation.datasets.contract import DetectionDataset, Folders, required
from attention_ablation.datasets.reading.boxes import Annotation, ImageRecord, boxed_data
from attention_ablation.datasets.reading.data import DetectionData

MINIVAL = 5_000
# Files that say which images of val are minival. The images of val2017 are the same ones.
MINIVAL_LISTS = ("instances_minival2014.json", "instances_val2017.json")
REST_LIST = "instances_valminusminival2014.json"
LEFT_OUT = (
    "crowds left out of training",
    "boxes without area or outside their image left out of training",
    "training boxes clipped to their images",
)

Id = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Side = Annotated[int, Field(ge=1, le=10**6)]


@dataclass(slots=True)
class ListedImage:
    id: Id


@dataclass(slots=True)
class Image(ListedImage):
    file_name: Annotated[str, Field(pattern=r"^[^/\x00]+$")]
    width: Side
    height: Side


@dataclass(slots=True)
class Object:
    """An object: x, y, width and height of its box and the area of its outline, px."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[Number, Number, Number, Number]
    area: Number
    iscrowd: Annotated[int, Field(ge=0, le=1)] = 0


@dataclass(slots=True)
class Category:
    id: Id
    name: str


@dataclass(slots=True)
class Listed:
    """A file that says which images are in a split; their ids alone are read."""

    images: Annotated[list[ListedImage], FailFast()]


@dataclass(slots=True)
class Instances:
    images: Annotated[list[Image], FailFast()]
    annotations: Annotated[list[Object], FailFast()]
    categories: Annotated[list[Category], FailFast()]


T = TypeVar("T", Listed, Instances)


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

    def load(self, folders: Folders) -> DetectionData:
        """Return the data set; labels count its categories by their ids, from 1."""
        root = self.place(folders)
        train_file, val_file = (required(folders.datasets / name) for name in self.lists)
        val = read_instances(val_file, Instances)
        categories = sorted((category.id, category.name) for category in val.categories)
        labels = {category: label for label, (category, _) in enumerate(categories, start=1)}
        if len(labels) < len(categories):
            raise UserError(
                f"{val_file}: expected categories with ids of their own. Fetch it again."
            )
        notes: list[str] = []
        val_ids = {image.id for image in val.images}
        held_out, rest, derived = _minival(val_ids, root / "annotations", notes)
        validation, train = (
            _records(val, chosen, root / "val2014", labels, val_file) for chosen in (held_out, rest)
        )
        del val  # not beside the larger file
        larger = read_instances(train_file, Instances)
        chosen = {image.id for image in larger.images}
        train = _records(larger, chosen, root / "train2014", labels, train_file) + train
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
    val_ids: set[int], annotations: Path, notes: list[str]
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
    rest = val_ids - held_out
    if (annotations / REST_LIST).exists():
        rest = _listed(annotations / REST_LIST, val_ids)
        if both := rest & held_out:
            raise UserError(
                f"{annotations / REST_LIST}: expected no image of minival, got {len(both):,}, such "
                f"as {min(both)}. Fetch both lists again, or remove this one."
            )
    return held_out, rest, listed is None


def _listed(path: Path, val_ids: set[int]) -> set[int]:
    ids = {image.id for image in read_instances(path, Listed).images}
    if strange := ids - val_ids:
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
    for a in data.annotations:
        wrong, (x, y, width, height) = None, a.bbox
        if a.image_id not in known:
            wrong = f"an image of the file, got image_id {a.image_id}. Fetch the file again"
        elif a.image_id not in chosen:
            continue
        elif width < 0 or height < 0:
            found = f"got {width:g} and {height:g}. Fetch the file again, or correct it"
            wrong = f"a width and height of 0 or more, {found}"
        elif a.category_id not in labels:
            found = f"got {a.category_id}. Fetch both files again"
            wrong = f"a category of instances_val2014.json, {found}"
        if wrong:
            raise UserError(f"{path}: annotation {a.id}: expected {wrong}.")
        box, label = (x, y, x + width, y + height), labels[a.category_id]
        objects[a.image_id].append(Annotation(box, label, a.area, crowd=bool(a.iscrowd)))
    return [
        ImageRecord(
            folder / image.file_name, image.id, image.width, image.height, objects[image.id]
        )
        for image in sorted(data.images, key=lambda image: image.id)
        if image.id in chosen
    ]


def _trainable(records: list[ImageRecord], notes: list[str]) -> list[ImageRecord]:
    """Return the records without crowds and bad boxes, the other boxes inside their images."""
    result, counts = [], dict.fromkeys(LEFT_OUT, 0)
    crowds, empty, clipped = LEFT_OUT
    for record in records:
        kept = []
        for a in record.objects:
            box = record.clip(a.box)
            if a.crowd:
                counts[crowds] += 1
            elif a.area <= 0 or box is None:
                counts[empty] += 1
            else:
                counts[clipped] += box != a.box
                kept.append(a._replace(box=box))
        result.append(record._replace(objects=kept))
    notes += [f"{what}: {count}" for what, count in counts.items() if count]
    return result


def read_instances(path: Path, form: type[T]) -> T:
    """Return an annotation file; raises UserError that says where it is not one."""
    try:
        return TypeAdapter(form).validate_json(read_bytes(path), strict=True)
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            reason = f"expected JSON, got: {first['ctx']['error']}"
        else:
            place = "".join(f"{step}." for step in first["loc"])[:-1] or "the whole"
            expected = first["msg"][0].lower() + first["msg"][1:]
            reason = f"{place}: {expected}, but got {reprlib.repr(first['input'])}"
        raise UserError(f"{path}: {reason}. Fetch it again.") from None
