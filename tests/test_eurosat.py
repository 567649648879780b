"""EuroSAT as its archive unpacks: read, split, held to its counts and names, trained on."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets as published
from torchvision.datasets import eurosat as published_eurosat

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.datasets import eurosat
from attention_ablation.datasets.contract import Folders, load, require_dataset
from attention_ablation.datasets.eurosat import IMAGES, EuroSat
from attention_ablation.datasets.reading.data import ImageData, ImageSet
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.run import train
from tests.conftest import ROOT
from tests.machines import ONE_CPU, in_one
from tests.own_images import remove
from tests.photos import encoded, photo, pixels
from tests.test_training import history, small_run

SMALL = {name: 10 if images > 2_000 else 5 for name, images in IMAGES.items()}
DATASET = EuroSat(name="eurosat")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A EuroSAT of 95 images in the layout of its archive; the folder of the data sets."""
    seed = 0
    for name, images in SMALL.items():
        folder = tmp_path / "results/data/eurosat/2750" / name
        folder.mkdir(parents=True)
        for number in range(1, images + 1):
            seed += 1
            content = encoded(photo(seed, 64, 64))
            (folder / f"{name}_{number}.jpg").write_bytes(content)
    monkeypatch.setattr(eurosat, "IMAGES", SMALL)
    monkeypatch.setattr(EuroSat, "train_images", 76)
    monkeypatch.setattr(EuroSat, "validation_images", 19)
    return tmp_path / "results/data"


def read(small: Path) -> ImageData:
    data: ImageData = load(DATASET, Folders(small, small))
    return data


def prepared(small: Path) -> ImageData:
    """As a workflow does it: looked for, and read by a training."""
    require_dataset(DATASET, small)
    return read(small)


def test_the_counts_are_the_published_ones_and_a_fifth_of_each_class_is_for_validation() -> None:
    assert sum(IMAGES.values()) == 27_000
    assert (min(IMAGES.values()), max(IMAGES.values())) == (2_000, 3_000)
    assert list(IMAGES) == sorted(IMAGES)
    assert len(IMAGES) == EuroSat.classes == 10
    assert not any(images % 5 for images in IMAGES.values())
    assert EuroSat.validation_images == 27_000 // 5
    assert EuroSat.train_images == 27_000 - 5_400


def test_every_image_is_in_one_split_as_torchvision_labels_it(small: Path) -> None:
    data = read(small)
    reference = published.EuroSAT(small)  # which sorts by name: 1, 10, 2, ...
    assert data.classes == len(reference.classes) == 10
    expected: dict[bool, dict[bytes, int]] = {True: {}, False: {}}
    for path, label in reference.samples:
        number = int(Path(path).stem.split("_")[1])
        image = pixels(Path(path).read_bytes()).astype(np.uint8)
        expected[number in (5, 10)][image.transpose(2, 0, 1).tobytes()] = label
    for validation, split in ((False, data.train), (True, data.validation)):
        assert isinstance(split, ImageSet)
        found = [image.tobytes() for image in split.images.numpy()]
        assert dict(zip(found, split.labels.tolist(), strict=True)) == expected[validation]
        assert len(found) == len(expected[validation])
    assert (len(data.train), len(data.validation)) == (76, 19)
    assert isinstance(data.train, ImageSet)
    scaled = data.train.images.double() / 255
    assert isinstance(data.mean, torch.Tensor)
    assert isinstance(data.std, torch.Tensor)
    torch.testing.assert_close(data.mean.flatten().double(), scaled.mean((0, 2, 3)))
    std = scaled.std((0, 2, 3), correction=0)
    torch.testing.assert_close(data.std.flatten().double(), std)


def test_another_split_or_image_has_another_fingerprint(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(small).fingerprint
    assert read(small).fingerprint == first
    victim, other = (small / f"eurosat/2750/Forest/Forest_{number}.jpg" for number in (4, 5))
    content = victim.read_bytes(), other.read_bytes()
    victim.write_bytes(content[1])
    other.write_bytes(content[0])
    assert read(small).fingerprint != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: remove(root), r"eurosat: there is no such folder; .* download eurosat makes"),
        (lambda root: remove(root / "2750"), r"AnnualCrop: expected the 10 .* got no such folder"),
        (lambda root: remove(root / "2750/River"),
         r"2750/River: expected the 10 images River_1.jpg to River_10.jpg, got no such folder\. "
         r"Remove \S+/2750, then attention-ablation data download eurosat fetches it again\."),
        (lambda root: (root / "2750/Forest/Forest_10.jpg").unlink(),
         r"2750/Forest: expected the 10 images .* got 9, without Forest_10\.jpg\. Remove"),
        (lambda root: (root / "2750/Forest/copy.jpg").touch(), r"got 11, with copy\.jpg\. Remove"),
        (lambda root: (root / "2750/Forest/Forest_1.jpg").rename(root / "2750/Forest/Forest_0.jpg"),
         r"got 10, without Forest_1\.jpg and with Forest_0\.jpg\. Remove"),
        (lambda root: (root / "2750/Pasture/Pasture_3.jpg").write_bytes(b"\xff\xd8\xff"),
         r"Pasture_3\.jpg: expected an image, but it does not decode"),
        (lambda root: (root / "2750/Pasture/Pasture_3.jpg").write_bytes(encoded(photo(1, 64, 63))),
         r"Pasture_3\.jpg: expected 64 x 64 px, got 63 x 64\."),
    ],
)  # fmt: skip
def test_what_is_not_as_it_should_be_is_said(small: Path, change: Any, message: str) -> None:
    change(small / "eurosat")
    with pytest.raises(UserError, match=message):
        prepared(small)


def test_all_damaged_images_are_named(small: Path) -> None:
    for name in ("Forest_1", "River_2", "River_3"):
        (small / f"eurosat/2750/{name[:-2]}/{name}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"Forest_1.jpg: .* it is empty.* So it is with River_2.j"):
        read(small)


def test_files_that_are_no_jpg_are_left_alone(small: Path) -> None:
    first = read(small).fingerprint
    (small / "eurosat/2750/Forest/.DS_Store").touch()
    assert read(small).fingerprint == first


def test_it_is_fetched_to_where_it_is_read(
    tiny: Plan, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def fetch(url: str, download_root: str, md5: str) -> None:
        asked.append((url.rpartition("/")[2], md5))
        with zipfile.ZipFile(small / "EuroSAT.zip") as archive:
            archive.extractall(download_root)

    with zipfile.ZipFile(small / "EuroSAT.zip", "w") as archive:
        for path in sorted((small / "eurosat").rglob("*.jpg")):
            archive.write(path, path.relative_to(small / "eurosat"))
    fingerprint = read(small).fingerprint
    remove(small / "eurosat")
    monkeypatch.setattr(published_eurosat, "download_and_extract_archive", fetch)
    assert main(["data", "download", "eurosat"]) == 0
    assert asked == [("EuroSAT.zip", "c8fa014336c82ac7804f0398fcb19387")]
    assert read(small).fingerprint == fingerprint
    # torchvision takes what is there, which may be half of it, for all.
    (small / "eurosat/2750/SeaLake/SeaLake_7.jpg").unlink()
    assert main(["data", "download", "eurosat"]) == 2
    assert "got 9, without SeaLake_7.jpg" in capsys.readouterr().err
    assert len(asked) == 1


def test_a_training_on_it_augments(tiny: Plan, small: Path, tmp_path: Path) -> None:
    keys = {"dataset": DATASET.model_dump(), "batch_size": 16}
    folders = [tmp_path / name for name in ("pad-crop-flip", "none")]
    for place in folders:
        place.mkdir()
        run = small_run(tiny, "resnet50+se", augmentation=place.name, **keys)
        train(run, place, in_one(small), ONE_CPU)
    assert history(folders[0]) != history(folders[1])


def test_the_tier_plans_the_networks_at_64_px() -> None:
    plan = load_plan(Config(study="cbam", tier="eurosat"), ROOT)
    assert plan.tables == ["table1", "table2", "table3", "table4", "table5"]
    spec = plan.specs["table4", "resnet50+cbam"]
    assert spec.recipe.dataset == DATASET
    assert (spec.backbone.width, spec.recipe.augmentation) == (1.0, "pad-crop-flip")
