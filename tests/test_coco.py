"""COCO in the files that its archives hold: what is read, left out, and refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask
from torchvision.datasets import CocoDetection

from attention_ablation.base.errors import UserError
from attention_ablation.datasets import coco
from attention_ablation.datasets.coco import Coco, derived_minival
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.datasets.reading.data import DetectionData
from attention_ablation.training.detection_metrics import coco_map
from tests.boxed_images import cut, everything, jpeg

CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 18, "name": "dog"},
    {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
]


def coco_image(number: int, split: str) -> dict[str, Any]:
    name = f"COCO_{split}_{number:012}.jpg"
    return {"id": number, "file_name": name, "width": 64, "height": 48, "license": 3}


def coco_annotation(number: int, image: int, category: int, bbox: list[float]) -> dict[str, Any]:
    x, y, w, h = bbox
    outline = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "area": w * h * 0.75,
        "iscrowd": 0,
        "segmentation": [outline],
    }


def crowd(
    number: int, image: int, category: int, bbox: tuple[int, int, int, int]
) -> dict[str, Any]:
    """Return a crowd as COCO has them: its outline as uncompressed run lengths."""
    x, y, w, h = bbox
    pixels = np.zeros((48, 64), np.uint8)
    pixels[y : y + h, x : x + w] = 1
    column = pixels.flatten(order="F")
    changes = np.flatnonzero(np.diff(column)) + 1
    counts = np.diff([0, *changes, len(column)]).tolist()
    rle: Any = {"counts": counts, "size": [48, 64]}
    packed = mask.frPyObjects(rle, 48, 64)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": mask.toBbox(packed).tolist(),
        "area": int(mask.area(packed)),
        "iscrowd": 1,
        "segmentation": rle,
    }


def write_instances(path: Path, images: list[Any], annotations: list[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    data = {"info": {"year": 2014}, "licenses": [], "images": images, "annotations": annotations}
    path.write_text(json.dumps(data | {"categories": CATEGORIES}))


@pytest.fixture
def coco2014(tmp_path: Path) -> Path:
    """COCO's folders: three images of train, four of val of which two are minival."""
    folder = tmp_path / "coco2014"
    train = [coco_image(n, "train2014") for n in (30, 9, 25)]
    val = [coco_image(n, "val2014") for n in (42, 73, 74, 133)]
    for image in train:
        jpeg(folder / "train2014" / image["file_name"], 64, 48)
    for image in val:
        jpeg(folder / "val2014" / image["file_name"], 64, 48)
    write_instances(
        folder / "annotations/instances_train2014.json",
        train,
        [
            coco_annotation(1, 9, 18, [10.5, 5, 20, 15.25]),
            coco_annotation(2, 9, 90, [60, 40, 8, 4]),  # over the edge: clipped
            coco_annotation(3, 9, 1, [5, 5, 0, 10]),  # no area
            coco_annotation(4, 30, 1, [70, 5, 5, 10]),  # outside: nothing is left on this image
            crowd(900100000005, 25, 1, (3, 2, 30, 20)),
            coco_annotation(6, 25, 1, [1, 2, 30, 40]),
        ],
    )
    write_instances(
        folder / "annotations/instances_val2014.json",
        val,
        [
            coco_annotation(7, 42, 90, [1, 1, 10, 10]),
            coco_annotation(8, 73, 18, [2, 2, 10, 10]),
            crowd(900100000009, 73, 1, (20, 10, 30, 20)),
            coco_annotation(10, 74, 1, [3, 3, 10, 10]),
        ],
    )
    # The public list holds annotations that are not of val2014; only its images count.
    listed = [coco_image(n, "val2014") for n in (73, 133)]
    write_instances(
        folder / "annotations/instances_minival2014.json",
        listed,
        [coco_annotation(8, 73, 18, [0, 0, 1, 1])],
    )
    return folder


def load_coco(folder: Path) -> DetectionData:
    data: DetectionData = load(Coco(name="coco2014"), Folders(folder, folder.parent))
    return data


def test_coco_is_read_as_it_lies(coco2014: Path) -> None:
    data = load_coco(coco2014)
    assert data.classes == ("person", "dog", "toothbrush")
    targets = everything(data)
    assert [int(t["image_id"]) for t in targets] == [9, 25, 42, 74]
    assert targets[0]["boxes"].tolist() == [[10.5, 5, 30.5, 20.25], [60, 40, 64, 44]]
    assert targets[0]["labels"].tolist() == [2, 3]
    assert targets[0]["area"].tolist() == [20 * 15.25 * 0.75, 8 * 4 * 0.75]
    assert targets[1]["boxes"].tolist() == [[1, 2, 31, 42]]  # without the crowd
    assert not any(t["crowd"].any() for t in targets)
    assert data.skipped == (
        "crowds left out of training: 1; boxes without area or outside their image left out of "
        "training: 2; training boxes clipped to their images: 1; training images: 5, where the "
        "data set has 118,287; validation images: 2, where the data set has 5,000; training "
        "images without an object left out: 1"
    )
    image, target = data.validation[0]
    assert image.shape == (3, 48, 64)
    assert target["crowd"].tolist() == [False, True]
    assert target["boxes"].tolist() == [[2, 2, 12, 12], [20, 10, 50, 30]]
    assert len(data.validation) == 2  # image 133, without objects, too
    assert "derived" not in data.fingerprint


def test_coco_has_torchvisions_images_and_boxes(
    coco2014: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = load_coco(coco2014)
    theirs = CocoDetection(
        coco2014 / "val2014", str(coco2014 / "annotations/instances_val2014.json")
    )
    capfd.readouterr()
    image, annotations = theirs[theirs.ids.index(73)]
    ours, target = data.validation[0]
    np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(image))
    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    boxes = torch.cat([target["boxes"][:, :2], sides], 1).tolist()
    assert boxes == [a["bbox"] for a in annotations]
    labels = [CATEGORIES[label - 1]["id"] for label in target["labels"]]
    assert labels == [a["category_id"] for a in annotations]


def test_a_detection_in_a_crowd_is_not_counted(coco2014: Path) -> None:
    targets = [load_coco(coco2014).validation[0][1]]
    boxes = torch.tensor([[2.0, 2, 12, 12], [25, 12, 35, 25]])
    prediction = {
        "boxes": boxes,
        "scores": torch.tensor([0.5, 0.9]),
        "labels": torch.tensor([2, 1]),
    }
    assert coco_map([prediction], targets)["map"] == pytest.approx(1)


@pytest.mark.parametrize("rest", [False, True])
def test_the_lists_choose_minival(coco2014: Path, rest: bool) -> None:
    annotations = coco2014 / "annotations"
    (annotations / "instances_minival2014.json").rename(annotations / "instances_val2017.json")
    if rest:
        images = [coco_image(74, "val2014")]
        write_instances(annotations / "instances_valminusminival2014.json", images, [])
    data = load_coco(coco2014)
    assert [int(data.validation[i][1]["image_id"]) for i in range(2)] == [73, 133]
    ids = [int(t["image_id"]) for t in everything(data)]
    assert ids == ([9, 25, 74] if rest else [9, 25, 42, 74])


def test_without_a_list_minival_is_derived_and_says_so(
    coco2014: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (coco2014 / "annotations/instances_minival2014.json").unlink()
    with pytest.raises(
        UserError, match=r"expected instances_minival2014.json or instances_val2017"
    ):
        load_coco(coco2014)
    monkeypatch.setattr(coco, "MINIVAL", 2)
    data = load_coco(coco2014)
    chosen = {int(data.validation[i][1]["image_id"]) for i in range(2)}
    assert chosen == derived_minival([42, 73, 74, 133], 2)
    assert data.fingerprint.endswith("-derived-minival")
    assert "minival is not the public one" in data.skipped


def test_the_derived_minival_is_the_same_in_any_order_and_spread_evenly() -> None:
    ids = list(range(1, 40_505))
    chosen = derived_minival(ids, 5_000)
    assert len(chosen) == 5_000
    assert derived_minival(reversed(ids), 5_000) == chosen
    # Worked out with sha256sum and sort.
    assert sorted(chosen)[:4] == [9, 39, 49, 50]
    assert np.mean(list(chosen)) == pytest.approx(20_252, rel=0.03)


def spoil(path: Path, part: str = "annotations", **changes: object) -> None:
    data = json.loads(path.read_text())
    data[part][0] |= changes
    path.write_text(json.dumps(data))


def same_image(folder: Path, file: str) -> None:
    """Give an image of minival once more."""
    path = folder / file
    data = json.loads(path.read_text())
    data["images"].append(coco_image(73, "train2014"))
    data["annotations"].append(coco_annotation(99, 73, 18, [1, 1, 5, 5]))
    path.write_text(json.dumps(data))


def folder_at(path: Path) -> None:
    path.unlink()
    path.mkdir()


TRAIN, VAL = "annotations/instances_train2014.json", "annotations/instances_val2014.json"
MINI, REST = (
    "annotations/instances_minival2014.json",
    "annotations/instances_valminusminival2014.json",
)
COCO_MISTAKES: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda d: (d / TRAIN).unlink(),
        r"expected .*train2014.json, but .*annotations has instances_m",
    ),
    (lambda d: cut(d / VAL), r"instances_val2014.json: expected JSON, got: "),
    (
        lambda d: (d / VAL).write_text("[]"),
        r"val2014.json: the whole: input .* an object, but got \[\]",
    ),
    (lambda d: (d / "val2014").rename(d / "val"), r"000042.jpg: the image is missing; 2 of 4 are"),
    (
        lambda d: spoil(d / TRAIN, bbox=[1, 1, -2, 5]),
        r"train2014.json: annotation 1: .* got -2 and 5",
    ),
    (
        lambda d: spoil(d / VAL, bbox=[1, 1, 2]),
        r"val2014.json: annotations.0.bbox.3: field required, but got \[1, 1, 2\]\.",
    ),
    (
        lambda d: spoil(d / VAL, category_id=2),
        r"annotation 7: expected a category .* got 2\.",
    ),
    (lambda d: spoil(d / TRAIN, image_id=8), r"annotation 1: expected an image of .* image_id 8"),
    (
        lambda d: write_instances(d / MINI, [coco_image(5, "val2014")], []),
        r"minival2014.json: expected images of instances_val2014.json, got 1 others, such as 5",
    ),
    (
        lambda d: write_instances(d / REST, [coco_image(73, "val2014")], []),
        r"valminusminival2014.json: expected no image of minival, got 1, such as 73",
    ),
    *(
        (
            lambda d, change=change: spoil(d / TRAIN, **change),
            rf"train2014.json: annotations\.0\.{key}: input should be {found}\. Fetch",
        )
        for change, key, found in [
            ({"bbox": [1, 1, math.nan, 5]}, r"bbox\.2", "less than .*, but got nan"),
            ({"bbox": [1, 1, 2, math.inf]}, r"bbox\.3", "less than .*, but got inf"),
            ({"bbox": [1, 1, 2, "5"]}, r"bbox\.3", "a valid number, but got '5'"),
            ({"bbox": [1, 1e300, 2, 5]}, r"bbox\.1", r"less than .*, but got 1e\+300"),
            ({"bbox": "1 1 2 5"}, "bbox", "a valid array, but got '1 1 2 5'"),
            ({"area": math.nan}, "area", "less than .*, but got nan"),
            ({"image_id": 9.5}, "image_id", "a valid integer, but got 9.5"),
            ({"iscrowd": "no"}, "iscrowd", "a valid integer, but got 'no'"),
        ]
    ),
    *(
        (
            lambda d, change=change: spoil(d / VAL, "images", **change),
            rf"val2014.json: images\.0\.{key}: (input|string) should .*, but got {found}\. Fetch",
        )
        for change, key, found in [
            ({"id": "42"}, "id", "'42'"),
            ({"id": 2**63}, "id", 2**63),
            ({"id": None}, "id", None),
            ({"file_name": "../../etc/passwd"}, "file_name", "'../../etc/passwd'"),
            ({"file_name": "/dev/zero"}, "file_name", "'/dev/zero'"),
            ({"file_name": "a\0b"}, "file_name", r"'a\\x00b'"),
            ({"width": 0}, "width", 0),
        ]
    ),
    (lambda d: same_image(d, VAL), r"expected every image once, .* such as 73\."),
    (lambda d: spoil(d / TRAIN, "images", id=73), r"expected an image of the file"),
    (lambda d: same_image(d, TRAIN), r"expected every image once, .* such as 73\. Fetch the lists"),
    (lambda d: spoil(d / VAL, "categories", id=18), r"val2014.json: expected categories with ids"),
    (lambda d: (d / VAL).write_text("[" * 100_000), r"val2014.json: expected JSON, got: "),
    (lambda d: (d / VAL).write_bytes(b'{"images": "\xff"}'), r"val2014.json: expected JSON, got: "),
    (
        lambda d: (d / VAL).write_text('{"images": [3]}'),
        r"val2014.json: images\.0: input should be an object, but got 3\.",
    ),
    (lambda d: folder_at(d / VAL), r"val2014.json: expected a regular file, got a folder"),
    (
        lambda d: (d / MINI).write_text('{"images": {}}'),
        r"minival2014.json: images: .* array, but got \{\}",
    ),
]


@pytest.mark.parametrize(("mistake", "message"), COCO_MISTAKES)
def test_a_broken_coco_is_named(
    coco2014: Path, mistake: Callable[[Path], object], message: str
) -> None:
    mistake(coco2014)
    with pytest.raises(UserError, match=message):
        load_coco(coco2014)
