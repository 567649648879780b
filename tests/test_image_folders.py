"""Folders of image files: listed, held to their counts, checked."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from torchvision import datasets as published

from attention_ablation.cli import main
from attention_ablation.data.files import list_files, look
from attention_ablation.study.datasets import (
    ImageNet,
    Imagenette,
)
from attention_ablation.study.errors import UserError
from attention_ablation.study.expand import Plan
from tests.conftest import ROOT, write_yaml
from tests.own_images import OWN, remove
from tests.photos import CLASSES, folder
from tests.test_workflow import snakemake


def test_files_are_listed_as_torchvision_lists_them(own: Path) -> None:
    found = list_files(OWN, own)
    for split, name in ((found.train, "train"), (found.validation, "val")):
        reference = published.ImageFolder(own / "own" / name)
        assert split.classes == reference.classes
        paths = [(str(split.path(i)), int(split.labels[i])) for i in range(len(split.labels))]
        assert paths == reference.samples
        assert split.sizes.tolist() == [Path(path).stat().st_size for path, _ in paths]
    assert found.classes == 3


def test_the_fingerprint_is_of_names_and_sizes(own: Path, tmp_path: Path) -> None:
    first = list_files(OWN, own)
    lines = [
        f"{path.relative_to(own / 'own')} {path.stat().st_size}\n"
        for split in ("train", "val")
        for path in sorted((own / "own" / split).rglob("*.*"))
        if path.suffix != ".txt"
    ]
    assert first.fingerprint == hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
    victim = first.train.path(0)
    victim.write_bytes(victim.read_bytes() + b"\0")
    assert list_files(OWN, own).fingerprint != first.fingerprint


def test_the_list_is_kept_until_a_folder_changes(own: Path, tmp_path: Path) -> None:
    cache = tmp_path / "lists"
    first = list_files(OWN, own, cache)
    (kept,) = cache.glob("*.files.json")
    written = kept.stat().st_mtime_ns
    assert list_files(OWN, own, cache).fingerprint == first.fingerprint
    assert kept.stat().st_mtime_ns == written
    first.train.path(0).rename(first.train.path(0).with_name("renamed.JPEG"))
    assert list_files(OWN, own, cache).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: remove(own), r"own: expected the folders train and val .* no such folder"),
        (lambda own: remove(own / "val"), r"own: expected the folders .* got train\. docs"),
        (lambda own: remove(own / "train/n01440764"),
         r"own/train: expected a folder for each of 3 classes, got 2: n02102040, n02979186"),
        (lambda own: (own / "val/n02979186").rename(own / "val/n3"),
         r"expected the same classes in train and val, got n02979186, n3 in one of them only"),
        (lambda own: (own / "train/n02102040/n02102040_1.JPEG").unlink(),
         r"own/train: expected 12 images, got 11"),
        (lambda own: [f.unlink() for f in (own / "val/n02102040").iterdir()],
         r"own/val: expected images in every class, got none in n02102040"),
    ],
)  # fmt: skip
def test_a_wrong_layout_says_what_was_expected_and_found(
    own: Path, change: Any, message: str
) -> None:
    change(own / "own")
    with pytest.raises(UserError, match=message):
        list_files(OWN, own)


def test_imagenet_and_imagenette_are_folders_of_known_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "imagenet", CLASSES, 2, 1)
    dataset = ImageNet(name="imagenet")
    with pytest.raises(UserError, match=r"a folder for each of 1,000 classes, got 3: n01440764"):
        list_files(dataset, tmp_path)
    monkeypatch.setattr(ImageNet, "classes", 3)
    with pytest.raises(UserError, match=r"train: expected 1,281,167 images, got 6\. docs"):
        list_files(dataset, tmp_path)
    monkeypatch.setattr(ImageNet, "train_images", 6)
    with pytest.raises(UserError, match=r"val: expected 50,000 images, got 3 \(1 in n01440764, 1"):
        list_files(dataset, tmp_path)
    monkeypatch.setattr(ImageNet, "validation_images", 3)
    assert list_files(dataset, tmp_path).train.classes == CLASSES
    # As torchvision unpacks the archives: the folder's name carries the size.
    folder(tmp_path / "imagenette/imagenette2-160", CLASSES, 1, 1)
    small = Imagenette(name="imagenette", size="160px")
    with pytest.raises(UserError, match=r"imagenette2-160/train: .* 10 classes, got 3"):
        list_files(small, tmp_path)
    with pytest.raises(UserError, match=r"imagenette/imagenette2: expected the folders"):
        look(Imagenette(name="imagenette", size="full"), tmp_path)
    assert published.Imagenette._ARCHIVES["160px"][0].endswith("/imagenette2-160.tgz")


def test_imagenets_archives_are_asked_for_by_name(
    tiny: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = tmp_path / "results/data/imagenet"
    archives.mkdir(parents=True)
    (archives / "ILSVRC2012_img_val.tar").touch()
    assert main(["data", "download", "imagenet"]) == 2
    error = capsys.readouterr().err
    assert "got no ILSVRC2012_img_train.tar, ILSVRC2012_devkit_t12.tar.gz" in error
    with pytest.raises(UserError, match=r"Unpack the archives: .* data download imagenet"):
        look(ImageNet(name="imagenet"), tmp_path / "results/data")


@pytest.fixture
def own_tier(own: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose tier 'own' is of OWN, whose config names the folder."""
    monkeypatch.chdir(project)
    tier = yaml.safe_load((ROOT / "workflow/tiers/quick.yaml").read_text())
    tier["classification"].pop("backbones")
    tier["classification"]["recipe"] |= {
        "dataset": OWN.model_dump(), "augmentation": "crop-flip", "batch_size": 4,
    }  # fmt: skip
    write_yaml(project / "workflow/tiers/own.yaml", tier)
    config = {"study": "cbam", "tier": "own", "tables": ["table3"], "data": str(own)}
    write_yaml(project / "config.yaml", config)
    return own / "own"


def test_data_check_lists_every_bad_file(
    own_tier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "check", "--workers", "2"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "folder: 3 classes, 12 training and 7 validation images, fingerprint " in output
    bad = [own_tier / "train/n01440764/n01440764_0.JPEG", own_tier / "val/n02979186/more.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:300])
    bad[1].write_text("a web page")
    assert main(command) == 1
    output = capsys.readouterr().out
    assert all(f"{path}: expected an image, but it does not decode" in output for path in bad)
    assert "2 of 19 files do not decode." in output
    bad[0].unlink()
    assert main(command) == 1
    assert "own/train: expected 12 images, got 11" in capsys.readouterr().out


def test_the_workflow_trains_where_the_config_says_that_the_data_lie(
    own_tier: Path, project: Path
) -> None:
    edited = yaml.safe_load((project / "workflow/tiers/own.yaml").read_text())
    edited["classification"]["recipe"]["epochs"] = 1
    write_yaml(project / "workflow/tiers/own.yaml", edited)
    done = snakemake(project)
    assert done.returncode == 0, done.stdout
    assert len(list(project.glob("results/own/runs/*/*/metrics.json"))) == 4
    (kept,) = project.glob("results/data/own_*.files.json")  # one list for all four
    assert json.loads(kept.read_text())["val"].keys() == set(CLASSES)
    table = (project / "results/own/cbam/tables/table3.md").read_text()
    assert "n = 0" not in table
    remove(own_tier / "val")
    remove(project / "results")
    done = snakemake(project)
    assert done.returncode != 0
    assert f"Nothing was started: {own_tier}: expected the folders train and val" in done.stdout
    assert not list(project.glob("results/own/runs/*/*/spec.json"))
