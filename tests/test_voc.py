"""VOC in the files that its archives hold: what is read, left out, and refused."""

import errno
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import VOCDetection

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.datasets.reading.data import DetectionData
from attention_ablation.datasets.reading.examine import examine
from attention_ablation.datasets.voc import CLASSES, Voc
from attention_ablation.training.detection_metrics import voc_map
from tests.boxed_images import Corners, cut, everything, jpeg


def voc_object(name: str, box: Corners, difficult: int | None = 0, part: bool = False) -> str:
    x0, y0, x1, y1 = (f"{value:.15g}" for value in box)
    corners = f"<xmin>{x0}</xmin>\n<ymin>{y0}</ymin>\n<xmax>{x1}</xmax>\n<ymax>{y1}</ymax>"
    hard = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    head = (
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax>"
        "<ymax>3</ymax></bndbox></part>"
    )
    return (
        f"<object><name>{name}</name>\n<pose>Left</pose><truncated>1</truncated>{hard}"
        f"{head if part else ''}<bndbox>\n{corners}\n</bndbox></object>"
    )


def voc_image(year: Path, name: str, objects: list[str], width: int = 60, height: int = 40) -> Path:
    jpeg(year / f"JPEGImages/{name}.jpg", width, height)
    (year / "Annotations").mkdir(exist_ok=True)
    path = year / f"Annotations/{name}.xml"
    path.write_text(
        f"<annotation>\n<folder>{year.name}</folder>\n<filename>{name}.jpg</filename>\n"
        "<source><database>The VOC Database</database></source>\n"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"<segmented>0</segmented>\n{''.join(objects)}\n</annotation>\n"
    )
    return path


def image_set(year: Path, name: str, images: list[str]) -> None:
    path = year / f"ImageSets/Main/{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(images) + "\n")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A devkit with both years: three images to train on, one to evaluate."""
    first, second = (tmp_path / f"VOCdevkit/VOC{year}" for year in ("2007", "2012"))
    voc_image(first, "000005", [voc_object("chair", (11, 6, 30, 25))])
    voc_image(
        first, "000007", [voc_object("car", (1, 1, 60, 40), 1), voc_object("dog", (9, 9, 9, 9))]
    )
    objects = [voc_object("person", (45.70000076293945, 2, 50, 20), None, part=True)]
    voc_image(second, "2008_000002", [*objects, voc_object("tvmonitor", (20, 20, 62, 39))])
    voc_image(
        first,
        "000001",
        [voc_object("dog", (48, 10, 55, 31)), voc_object("person", (8, 12, 52, 38), 1)],
    )
    image_set(first, "trainval", ["000005", "000007"])
    image_set(first, "test", ["000001"])
    image_set(second, "trainval", ["2008_000002"])
    return tmp_path


def load_voc(folder: Path) -> DetectionData:
    data: DetectionData = load(Voc(name="voc07+12"), Folders(folder, folder))
    return data


def test_voc_is_read_as_it_lies(voc: Path) -> None:
    data = load_voc(voc)
    assert data.classes == CLASSES
    assert len(CLASSES) == 20
    assert list(CLASSES) == sorted(CLASSES)
    chair, car, person = everything(data)
    # From 1 with the last pixel included, to from 0 without.
    assert chair["boxes"].tolist() == [[10, 5, 30, 25]]
    assert chair["labels"].tolist() == [CLASSES.index("chair") + 1]
    assert [int(t["image_id"]) for t in (chair, car, person)] == [5, 7, 2008000002]
    assert car["difficult"].tolist() == [True, False]  # difficult ones are trained on
    assert car["boxes"].tolist() == [[0, 0, 60, 40], [8, 8, 9, 9]]  # a box of one pixel
    assert person["labels"].tolist() == [15, 20]  # the head is a part, no object
    torch.testing.assert_close(
        person["boxes"], torch.tensor([[44.70000076293945, 1, 50, 20], [19, 19, 60, 39]])
    )
    image, test = data.validation[0]
    assert image.shape == (3, 40, 60)
    assert test["difficult"].tolist() == [False, True]
    assert data.skipped == (
        "boxes of VOC2012 trainval clipped to their images: 1; training images: 3, where the data "
        "set has 16,551; validation images: 1, where the data set has 4,952"
    )
    assert load_voc(voc).fingerprint == data.fingerprint


def test_voc_has_torchvisions_images_and_boxes(voc: Path) -> None:
    data = load_voc(voc)
    theirs = VOCDetection(voc, year="2007", image_set="trainval")
    for i in range(len(theirs)):
        image, annotation = theirs[i]
        ours, target = data.train[i]
        np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(image))
        corners = [
            [int(o["bndbox"][k]) for k in ("xmin", "ymin", "xmax", "ymax")]
            for o in annotation["annotation"]["object"]
        ]
        assert (target["boxes"] + torch.tensor([1, 1, 0, 0])).tolist() == corners


def test_voc_truth_as_detections_is_perfect(voc: Path) -> None:
    data = load_voc(voc)
    targets = everything(data)
    predictions = [t | {"scores": torch.ones(len(t["labels"]))} for t in targets]
    aps = voc_map(predictions, targets, data.classes)
    # The car is difficult.
    assert aps == dict.fromkeys(["chair", "dog", "person", "tvmonitor"], 1.0)


# The text of &b8; would have 10 ** 9 characters.
BOMB = b"".join(
    b'<!ENTITY b%d "%s">' % (n, b"&b%d;" % (n - 1) * 10 if n else b"x" * 10) for n in range(9)
)


HUGE = b"<size><width>1%s</width><height>4</height></size>" % (b"0" * 400)


def annotation(devkit: Path, inside: bytes, before: bytes = b"") -> None:
    path = devkit / "VOC2007/Annotations/000007.xml"
    path.write_bytes(before + b"<annotation>" + inside + b"</annotation>")


def folder_at(path: Path) -> None:
    path.unlink()
    path.mkdir()


def linked_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


VOC_MISTAKES: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda d: (d / "VOC2012").rename(d / "VOC12"),
        r"expected .*VOC2012/.*VOCdevkit has VOC12, VO",
    ),
    (lambda d: d.rename(d.parent / "voc"), r"expected .*/VOCdevkit/.*trainval.txt, but .* has voc"),
    (lambda d: (d / "VOC2007/ImageSets/Main/test.txt").unlink(), r"test.txt, but .* has trainval"),
    (lambda d: (d / "VOC2007/JPEGImages/000007.jpg").unlink(), r"000007.jpg: the image is missing"),
    (lambda d: (d / "VOC2007/Annotations/000007.xml").unlink(), r"expected .*Annotations/000007"),
    (lambda d: cut(d / "VOC2007/Annotations/000007.xml"), r"000007.xml: expected a VOC annotation"),
    (lambda d: image_set(d / "VOC2007", "test", []), r"test.txt: expected names .* an empty file"),
    (lambda d: image_set(d / "VOC2007", "test", ["dog.jpg"]), r"got 'dog.jpg'"),
    (
        lambda d: voc_image(d / "VOC2007", "000007", [voc_object("dgo", (1, 1, 9, 9))]),
        r"000007.xml: unknown class 'dgo'; did you mean 'dog'\?",
    ),
    (
        lambda d: voc_image(d / "VOC2007", "000007", [voc_object("dog", (9, 1, 8, 9))]),
        r"000007.xml: expected boxes with area inside the image of 60 x 40 px, got .* 9, 1, 8, 9",
    ),
    (
        lambda d: voc_image(d / "VOC2007", "000001", [voc_object("dog", (70, 1, 80, 9))]),
        r"000001.xml: expected boxes with area inside",
    ),
    (
        lambda d: voc_image(d / "VOC2007", "000001", ["<object><name>dog</name></object>"]),
        r"000001.xml: expected a VOC annotation, got: no <bndbox/xmin> in <object>",
    ),
    *(
        (
            lambda d, corner=corner: voc_image(
                d / "VOC2007", "000001", [voc_object("dog", (1, 1, corner, 9))]
            ),
            r"000001.xml: expected a VOC annotation, got: a bndbox of",
        )
        for corner in (math.nan, math.inf)
    ),
    (lambda d: annotation(d, b"&b8;", b"<!DOCTYPE a [%s]>" % BOMB), r"amplification"),
    (lambda d: annotation(d, b"<a>" * 100_000), r"000007.xml: expected a VOC annotation, got"),
    (lambda d: annotation(d, b"", b"<?xml version='1.0' encoding='klingon'?>"), r"klingon"),
    (
        lambda d: annotation(d, b"\xff"),
        r"000007.xml: expected a VOC annotation, got: not well",
    ),
    (lambda d: annotation(d, b" " * 10_000_000), r"000007.xml: expected at most 10,000,000 bytes"),
    (
        lambda d: annotation(d, HUGE + voc_object("dog", (1, 1, 9, 9)).encode()),
        r"000007.jpg: expected 10{400} x 4 px, as its annotation says, got 60 x 40",
    ),
    (
        lambda d: folder_at(d / "VOC2007/Annotations/000007.xml"),
        r"000007.xml: expected a regular file, got a folder",
    ),
    (
        lambda d: folder_at(d / "VOC2007/ImageSets/Main/test.txt"),
        r"test.txt: expected a regular file, got a folder",
    ),
    (lambda d: image_set(d / "VOC2007", "test", ["\N{SUPERSCRIPT TWO}"]), r"names .* got '²'"),
    (lambda d: image_set(d / "VOC2007", "trainval", ["000005"] * 2), r"once, .* such as 5\. Fetch"),
    (lambda d: image_set(d / "VOC2007", "test", ["000005"]), r"every image once, to train on or"),
    (
        lambda d: linked_to_itself(d / "VOC2007/Annotations/000007.xml"),
        r"expected .*7.xml, but",
    ),
    (lambda d: linked_to_itself(d / "VOC2007/JPEGImages/000007.jpg"), r"000007.jpg: it cannot be"),
]


@pytest.mark.parametrize(("mistake", "message"), VOC_MISTAKES)
def test_a_broken_devkit_is_named(
    voc: Path, mistake: Callable[[Path], object], message: str
) -> None:
    mistake(voc / "VOCdevkit")
    with pytest.raises(UserError, match=message):
        load_voc(voc).train[1]


def test_a_folder_that_cannot_be_looked_into_is_named(
    voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for name in ("exists", "stat"):
        with monkeypatch.context() as patched:  # a superuser would be let in
            patched.setattr(Path, name, forbidden)
            with pytest.raises(UserError, match=r"VOC2007/.*: it cannot be read: Permission den"):
                load_voc(voc)


def test_an_image_that_does_not_decode_is_named(voc: Path) -> None:
    images = voc / "VOCdevkit/VOC2007/JPEGImages"
    cut(images / "000005.jpg")
    (images / "000007.jpg").write_text("not found")
    jpeg(images / "000001.jpg", 40, 60)
    data = load_voc(voc)
    for index, name in enumerate(["000005", "000007"]):
        with pytest.raises(UserError, match=rf"{name}.jpg: expected an image, but it does not dec"):
            data.train[index]
    with pytest.raises(UserError, match=r"000001.jpg: expected 60 x 40 px, .*, got 40 x 60"):
        data.validation[0]
    assert data.train[2][0].shape == (3, 40, 60)


def test_data_check_names_images_that_are_damaged_or_of_another_size(
    voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Voc(name="voc07+12")
    assert examine(dataset, Folders(voc, voc), workers=1)
    images = voc / "VOCdevkit/VOC2007/JPEGImages"
    cut(images / "000005.jpg")
    jpeg(images / "000001.jpg", 40, 60)
    capsys.readouterr()
    assert not examine(dataset, Folders(voc, voc), workers=2)
    first, second, summary, counted = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{images}/000005.jpg: expected an image, but it does not decode")
    assert second.startswith(f"{images}/000001.jpg: expected 60 x 40 px, as its annotation says")
    assert summary.startswith("voc07+12: 20 classes, 3 training and 1 validation images, finger")
    assert "set has 16,551" in summary
    assert counted == "2 of 4 files do not decode."


def test_grey_images_have_three_colours(voc: Path) -> None:
    jpeg(voc / "VOCdevkit/VOC2007/JPEGImages/000005.jpg", 60, 40, mode="L")
    assert load_voc(voc).train[0][0].shape == (3, 40, 60)


def test_voc_images_without_objects_are_evaluated_and_not_trained_on(voc: Path) -> None:
    for name in ("000005", "000001"):
        voc_image(voc / "VOCdevkit/VOC2007", name, [])
    data = load_voc(voc)
    assert (len(data.train), len(data.validation)) == (2, 1)
    assert data.validation[0][1]["boxes"].shape == (0, 4)
    assert "training images without an object left out: 1" in data.skipped
    voc_image(voc / "VOCdevkit/VOC2007", "000007", [])
    voc_image(voc / "VOCdevkit/VOC2012", "2008_000002", [])
    with pytest.raises(UserError, match="got 3 images without any"):
        load_voc(voc)


def test_another_annotation_or_file_is_another_fingerprint(voc: Path) -> None:
    prints = {load_voc(voc).fingerprint}
    voc_image(voc / "VOCdevkit/VOC2007", "000005", [voc_object("chair", (11, 6, 30, 26))])
    prints.add(load_voc(voc).fingerprint)
    with (voc / "VOCdevkit/VOC2007/JPEGImages/000001.jpg").open("ab") as file:
        file.write(b"0")
    prints.add(load_voc(voc).fingerprint)
    assert len(prints) == 3
