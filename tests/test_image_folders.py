"""Folders of image files: listed, held to their counts, checked."""

import errno
import hashlib
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torchvision import datasets as published

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.datasets.contract import Folders, load, refused, require_dataset
from attention_ablation.datasets.image_folders import ImageFolder, ImageNet, Imagenette, list_files
from attention_ablation.datasets.reading.data import ImageData
from attention_ablation.datasets.reading.decode import read_image
from attention_ablation.study.expand import Plan
from tests.conftest import ROOT, write_yaml
from tests.own_images import OWN, own_run, remove
from tests.photos import CLASSES, encoded, folder, photo
from tests.test_training import small_run, spec_file
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


def loaded(dataset: ImageFolder, datasets: Path) -> ImageData:
    data: ImageData = load(dataset, Folders(datasets, datasets))
    return data


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
    (kept,) = cache.glob("*.files.npz")
    written = kept.stat().st_mtime_ns
    assert list_files(OWN, own, cache).fingerprint == first.fingerprint
    assert kept.stat().st_mtime_ns == written
    first.train.path(0).rename(first.train.path(0).with_name("renamed.JPEG"))
    assert list_files(OWN, own, cache).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"not JSON",
        lambda content: b"\xff" + content,
        lambda content: b"[" * 100_000,
        lambda content: b"null",
        lambda content: b"[]",
        lambda content: b'{"train": {}, "val": {"n1": {"changed": 1}}}',
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    ],
)
def test_a_damaged_list_is_made_again_and_said_to_be(
    own: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = list_files(OWN, own, own)
    (kept,) = own.glob("*.files.npz")
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    again = list_files(OWN, own, own)
    assert again.train.names.tolist() == first.train.names.tolist()
    assert again.fingerprint == first.fingerprint
    assert kept.read_bytes() == whole
    error = capsys.readouterr().err
    assert error.startswith(f"warning: {kept}: ")
    assert error.endswith("It is made again.\n")


@pytest.mark.parametrize(
    ("call", "owner", "name"), [(require_dataset, Path, "is_dir"), (loaded, os, "scandir")]
)
def test_a_folder_that_cannot_be_listed_is_named(
    own: Path, call: Any, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patched:  # a superuser would be let in
        patched.setattr(owner, name, forbidden)
        with pytest.raises(UserError, match=r"/own/train: it cannot be read: Permission denied\."):
            call(OWN, own)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("truncated"), "the data cannot be read: truncated."),
        (OSError(errno.EIO, "Input/output error"), "the data cannot be read: Input/output error."),
        (
            OSError(errno.EIO, "Input/output error", "a"),
            "a: it cannot be read: Input/output error.",
        ),
    ],
)
def test_what_the_system_refuses_is_said_with_a_name_or_without(
    error: OSError, message: str
) -> None:
    with pytest.raises(UserError, match=rf"^{message}$"), refused():
        raise error


def test_names_of_any_bytes_are_listed_and_read(own: Path) -> None:
    folder = own / "own/train/n01440764"
    victim = folder / "n01440764_0.JPEG"
    victim.rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.JPEG"))
    (folder / "n01440764_1.JPEG").rename(folder / "two\nlines.JPEG")
    for _ in range(2):
        files = list_files(OWN, own, own).train
        assert [read_image(files.path(i)).shape[0] for i in range(12)] == [3] * 12
    assert files.names[0] == b"n01440764/caf\xe9.JPEG"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: (own / "train/n01440764/gone.JPEG").symlink_to("nowhere"),
         r"n01440764/gone.JPEG: it cannot be read: No such file"),
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
        loaded(OWN, own)


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
        require_dataset(Imagenette(name="imagenette", size="full"), tmp_path)
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
        require_dataset(ImageNet(name="imagenet"), tmp_path / "results/data")


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


def test_data_check_names_hostile_files_a_line_each(
    own_tier: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = own_tier / "train/n01440764"
    pipe, device, latin, lines = sorted(folder.iterdir())
    pipe.unlink()
    os.mkfifo(pipe)
    device.unlink()
    device.symlink_to("/dev/zero")
    for path in (latin, lines):
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0")
    latin.rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.JPEG"))
    lines.rename(folder / "two\nlines.JPEG")
    assert main(["data", "check", "--workers", "1"]) == 1
    found = capsysbinary.readouterr().out.decode().splitlines()
    assert len(found) == 6
    assert f"{pipe}: expected a regular file, got a pipe." in found
    assert f"{device}: expected a regular file, got a device." in found
    assert any(rf"{folder}/caf\udce9.JPEG: expected an image" in line for line in found)
    assert any(rf"{folder}/two\nlines.JPEG: expected an image" in line for line in found)


def test_data_check_says_that_a_process_was_killed(
    own_tier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*file: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("attention_ablation.datasets.reading.decode.read_image", killed)
    assert main(["data", "check", "--workers", "1"]) == 2
    assert capsys.readouterr().err == (
        "attention-ablation: folder: a process that decodes images was killed, as one is for want "
        "of memory; fewer --workers need less.\n"
    )


def test_data_check_makes_the_list_anew_and_leaves_those_of_others(
    own_tier: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = project / "results/data"
    assert main(["data", "check", "--workers", "1"]) == 0
    (mine,) = lists.glob("*.files.npz")
    other = mine.with_name("other_0123456789.files.npz")
    other.write_text("{}")
    before = capsys.readouterr().out
    victim = own_tier / "train/n01440764/n01440764_0.JPEG"
    victim.write_bytes(encoded(photo(5)))  # in place: no folder's time says so
    assert main(["data", "check", "--workers", "1"]) == 0
    assert capsys.readouterr().out != before
    assert other.read_text() == "{}"


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "imagenette-160px"])
def test_a_download_into_a_file_is_refused(
    name: str, own_tier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = own_tier.parent / name.split("-")[0]
    file.touch()
    assert main(["data", "download", name]) == 2
    assert f"{file}: {name} could not be fetched: " in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--data"], ["--datasets"], ["--data", "file", "--datasets"]])
def test_a_training_with_a_file_for_a_folder_is_refused(
    options: list[str],
    tiny: Plan,
    own: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("file").touch()
    composed, files = spec_file(small_run(tiny, "resnet50+se")), spec_file(own_run(tiny))
    for spec in (composed, files):
        others = ["--datasets", str(own)] if options == ["--data"] else []
        if spec == composed and options == ["--datasets"]:
            continue  # which it does not need
        assert main(["train", str(spec), *options, "file", *others]) == 2
        error = capsys.readouterr().err
        assert re.match(r"attention-ablation: file(/own)?: expected (a|the) folder", error), error


def test_the_workflow_trains_where_the_config_says_that_the_data_lie(
    own_tier: Path, project: Path
) -> None:
    edited = yaml.safe_load((project / "workflow/tiers/own.yaml").read_text())
    edited["classification"]["recipe"]["epochs"] = 1
    write_yaml(project / "workflow/tiers/own.yaml", edited)
    done = snakemake(project)
    assert done.returncode == 0, done.stdout
    assert len(list(project.glob("results/own/runs/*/*/metrics.json"))) == 4
    (kept,) = project.glob("results/data/own_*.files.npz")  # one list for all four
    with np.load(kept) as listed:
        assert listed["val_classes"].tolist() == [name.encode() for name in CLASSES]
    table = (project / "results/own/cbam/tables/table3.md").read_text()
    assert "n = 0" not in table
    remove(own_tier / "val")
    remove(project / "results")
    done = snakemake(project)
    assert done.returncode != 0
    assert f"Nothing was started: {own_tier}: expected the folders train and val" in done.stdout
    assert not list(project.glob("results/own/runs/*/*/spec.json"))
