"""PASCAL VOC 2007 and 2012, in the folders of the devkit (and of torchvision's VOCDetection).

Training: trainval of both years, difficult objects included, as SSD (Liu et al. 2016; in its Caffe
code, train_on_diff_gt) and the VOC07+12 recipe of Table 7's lineage have it. Evaluation: test of
2007, whose difficult objects count neither way.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import ClassVar, Literal
from xml.etree import ElementTree

from pydantic import Field

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.base.io import read_bytes, read_text
from attention_ablation.datasets.contract import DetectionDataset, Folders, required
from attention_ablation.datasets.reading.boxes import Annotation, Box, ImageRecord, boxed_data
from attention_ablation.datasets.reading.data import DetectionData

# fmt: off
CLASSES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)
# fmt: on
NAME = re.compile(r"([0-9]{4}_)?[0-9]{6}")
MOST_BYTES = 10_000_000  # of an annotation; VOC's have thousands


class Voc(DetectionDataset):
    """VOC 2007 and 2012 trainval; VOC 2007 test: 20 classes (Everingham et al. 2010)."""

    in_memory: ClassVar = False
    folder: ClassVar = "VOCdevkit"
    lists: ClassVar = (
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt",
        "VOCdevkit/VOC2007/ImageSets/Main/test.txt",
        "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt",
    )
    classes: ClassVar = len(CLASSES)
    train_images: ClassVar = 5_011 + 11_540  # of 2007, of 2012
    validation_images: ClassVar = 4_952

    name: Literal["voc07+12"]
    image_size: int = Field(300, ge=32, description="Side to which every image is resized, px.")

    def load(self, folders: Folders) -> DetectionData:
        root, notes = self.place(folders), list[str]()
        train = [
            record
            for year in ("2007", "2012")
            for record in _split(root / f"VOC{year}", "trainval", notes)
        ]
        validation = _split(root / "VOC2007", "test", notes)
        return boxed_data(self, root, train, validation, CLASSES, notes)


def _split(year: Path, name: str, notes: list[str]) -> list[ImageRecord]:
    listed = required(year / f"ImageSets/Main/{name}.txt")
    names = read_text(listed).split()
    bad = next((n for n in names if not NAME.fullmatch(n)), None)
    if not names or bad:
        found = f"'{bad}'" if bad else "an empty file"
        raise UserError(f"{listed}: expected names such as 000005 or 2008_000002, got {found}.")
    read = [_record(year, name) for name in names]
    clipped = sum(was_clipped for _, was_clipped in read)
    if clipped:
        notes.append(f"boxes of {year.name} {name} clipped to their images: {clipped}")
    return [record for record, _ in read]


def _record(year: Path, name: str) -> tuple[ImageRecord, int]:
    """Return an image's record, numbered by its name, and how many boxes had to be clipped."""
    path = required(year / f"Annotations/{name}.xml")
    try:
        # Its parser refuses entities that grow.
        root = ElementTree.fromstring(read_bytes(path, MOST_BYTES))
        width, height = (int(_text(root, f"size/{side}")) for side in ("width", "height"))
        objects = [_object(element) for element in root.findall("object")]
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # Lookup: an encoding
        raise UserError(f"{path}: expected a VOC annotation, got: {error}.") from None
    image = year / f"JPEGImages/{name}.jpg"
    record, clipped = ImageRecord(image, int(name.replace("_", "")), width, height, []), 0
    for label_name, box, difficult in objects:
        if label_name not in CLASSES:
            raise unknown("class", label_name, CLASSES, path)
        inside = record.clip(box)
        if inside is None:
            raise UserError(
                f"{path}: expected boxes with area inside the image of {width} x {height} px, got "
                f"xmin, ymin, xmax, ymax of {box[0] + 1:g}, {box[1] + 1:g}, {box[2]:g}, {box[3]:g}"
                f" for a '{label_name}'. Fetch the file again, or correct it."
            )
        clipped += inside != box
        area = (inside[2] - inside[0]) * (inside[3] - inside[1])
        record.objects.append(Annotation(inside, CLASSES.index(label_name) + 1, area, difficult))
    return record, clipped


def _object(element: ElementTree.Element) -> tuple[str, Box, bool]:
    """Return an object's class, box and whether it is difficult. Its parts are objects of none."""
    corners = [float(_text(element, f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")]
    if not all(map(math.isfinite, corners)):
        raise ValueError(f"a bndbox of {corners}")
    # VOC counts pixels from 1 and includes the last; a few coordinates of 2012 have fractions.
    box = (corners[0] - 1, corners[1] - 1, corners[2], corners[3])
    return _text(element, "name"), box, element.findtext("difficult", "0").strip() == "1"


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no <{path}> in <{element.tag}>")
    return text.strip()
