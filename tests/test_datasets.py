"""Data sets that lie on a disk, in their true formats: found, held to their counts, trained on."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torchvision import datasets as published

from attention_ablation.analysis.explain import explain
from attention_ablation.cli import main
from attention_ablation.data.batches import FileSource, Part
from attention_ablation.data.files import list_files, look
from attention_ablation.data.images import EvaluationCrop, read_image
from attention_ablation.data.load import ImageData, load
from attention_ablation.study.datasets import (
    Cifar10,
    Cifar100,
    ImageFolder,
    ImageNet,
    Imagenette,
)
from attention_ablation.study.errors import UserError
from attention_ablation.study.expand import Plan
from attention_ablation.study.spec import Run
from attention_ablation.training.run import train
from tests.conftest import ROOT, write_yaml
from tests.photos import encoded, folder, photo
from tests.test_training import CPU, history, small_run, spec_file
from tests.test_workflow import snakemake

CLASSES = ["n01440764", "n02102040", "n02979186"]
OWN = ImageFolder(
    name="folder", folder="own", classes=3, train_images=12, validation_images=7, image_size=32,
    resize=40,
)  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of data sets, with OWN: 4 images a class to train on; 2, 2, 3 to evaluate."""
    folder(tmp_path / "own", CLASSES, 4, 2)
    (tmp_path / "own/val/n02979186/more.png").write_bytes(encoded(photo(99), "PNG"))
    (tmp_path / "own/val/n02979186/readme.txt").write_text("no image, and not taken for one")
    return tmp_path


# In memory: CIFAR


def cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Write a small CIFAR in its format, and make torchvision expect its MD5 sums."""
    kind, record = {
        "cifar10": (published.CIFAR10, Cifar10),
        "cifar100": (published.CIFAR100, Cifar100),
    }[name]
    classes, key = (10, "labels") if name == "cifar10" else (100, "fine_labels")
    rng = np.random.default_rng(0)
    base = root / name / kind.base_folder
    base.mkdir(parents=True)

    def write(file: str, content: dict[str, Any]) -> str:
        (base / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((base / file).read_bytes()).hexdigest()

    def batch(file: str) -> list[str]:
        data = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        labels = rng.integers(0, classes, 20).tolist()
        return [file, write(file, {"data": data, key: labels, "filenames": ["x.png"] * 20})]

    train = [batch(file) for file, _ in kind.train_list]
    test = [batch(file) for file, _ in kind.test_list]
    names = [f"class {i}" for i in range(classes)]
    meta = kind.meta | {"md5": write(kind.meta["filename"], {kind.meta["key"]: names})}
    monkeypatch.setattr(kind, "train_list", train)
    monkeypatch.setattr(kind, "test_list", test)
    monkeypatch.setattr(kind, "meta", meta)
    monkeypatch.setattr(record, "train_images", 20 * len(train))
    monkeypatch.setattr(record, "validation_images", 20)
    return kind, record(name=name)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_its_pickles(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, dataset = cifar(tmp_path, name, monkeypatch)
    data = load(dataset, tmp_path)
    assert isinstance(data, ImageData)
    reference = kind(tmp_path / name, train=True)
    assert data.train.images.shape == (dataset.train_images, 3, 32, 32)
    for i in (0, 19, dataset.train_images - 1):
        image, label = reference[i]
        assert np.array_equal(data.train.images[i].permute(1, 2, 0).numpy(), np.asarray(image))
        assert data.train.labels[i] == label
    scaled = reference.data / 255
    for found, expected in ((data.mean, scaled.mean((0, 1, 2))), (data.std, scaled.std((0, 1, 2)))):
        assert isinstance(found, torch.Tensor)
        np.testing.assert_allclose(found.flatten(), expected, rtol=1e-5)
    assert data.classes == dataset.classes
    assert load(dataset, tmp_path).fingerprint == data.fingerprint
    monkeypatch.setattr(type(dataset), "train_images", 50_000)
    with pytest.raises(UserError, match=r"expected 50,000 images of 100? classes, got \d+ of"):
        load(dataset, tmp_path)
    damaged = tmp_path / name / kind.base_folder / kind.train_list[-1][0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"missing or damaged .* data download {name} fetches"):
        load(dataset, tmp_path)
    with pytest.raises(UserError, match=f"nowhere/{name}: there is no such folder"):
        look(dataset, tmp_path / "nowhere")


def test_cifars_counts_are_the_published_ones() -> None:
    for dataset in (Cifar10(name="cifar10"), Cifar100(name="cifar100")):
        assert (dataset.train_images, dataset.validation_images) == (50_000, 10_000)
        assert dataset.image_size == 32
    assert (ImageNet(name="imagenet").train_images, ImageNet(name="imagenet").classes) == (
        1_281_167,
        1000,
    )


def test_a_training_on_cifar_augments_and_resumes(
    tiny: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dataset = cifar(tmp_path / "results/data", "cifar10", monkeypatch)
    keys = {"dataset": dataset.model_dump(), "augmentation": "pad-crop-flip", "nesterov": True}
    run = small_run(tiny, "resnet50+se", **keys)
    run = Run.model_validate(run.model_dump() | {"spec": with_stem(run)})
    folders = [tmp_path / name for name in ("plain", "other")]
    for place, changes in zip(folders, ({}, {"augmentation": "none"}), strict=True):
        place.mkdir()
        data = run.model_dump()
        data["spec"]["recipe"] |= changes
        train(Run.model_validate(data), place, tmp_path / "results/data", CPU)
    assert history(folders[0]) != history(folders[1])


def with_stem(run: Run) -> dict[str, Any]:
    spec = run.spec.model_dump()
    spec["backbone"]["stem"] = "cifar"
    return spec


# Image files


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


def remove(path: Path) -> None:
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    path.rmdir()


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


def own_run(tiny: Plan, dataset: ImageFolder = OWN, **recipe: Any) -> Run:
    keys = {"dataset": dataset.model_dump(), "augmentation": "crop-flip", "batch_size": 4}
    return small_run(tiny, "resnet50+se", **keys | recipe)


def file_source(run: Run, own: Path, workers: int = 0, rank: int = 0, size: int = 1) -> FileSource:
    part = Part(run.spec.recipe, run.seed, rank, size)
    return FileSource(list_files(OWN, own), part, CPU, workers)


def test_neither_workers_nor_processes_nor_a_resume_change_an_image(tiny: Plan, own: Path) -> None:
    run = own_run(tiny)
    alone = list(file_source(run, own).training(1, 0))
    assert len(alone) == 3
    source = file_source(run, own, workers=2)
    halves = [list(file_source(run, own, 0, rank, 2).training(1, 0)) for rank in (0, 1)]
    for attempt in (0, 1):  # the workers stay for the second
        for mine, other, *parts in zip(alone, source.training(1, 0), *halves, strict=True):
            for k in (0, 1):
                assert torch.equal(mine[k], other[k])
                assert torch.equal(mine[k], torch.cat([part[k] for part in parts]))
        next(source.training(2, 0))  # abandoned
        resumed = list(source.training(1, 2))
        assert torch.equal(resumed[0][0], alone[2][0])
        assert attempt or len(children()) == 2
    source.close()
    assert not children()
    labels = torch.cat([of for _, of in alone])
    assert labels.bincount().tolist() == [4, 4, 4]


NOT_CLOSED = """
import sys
from pathlib import Path
import torch
from attention_ablation.data.batches import FileSource, Part
from attention_ablation.data.files import list_files
from attention_ablation.study.spec import Run

recipe = Run.model_validate_json(sys.argv[1]).spec.recipe
files = list_files(recipe.dataset, Path(sys.argv[2]))
source = FileSource(files, Part(recipe, 0, 0, 1), torch.device("cpu"), workers=2)
batches = source.training(1, 0)
next(batches)
print("ends")
raise SystemExit(3)
"""


def test_a_process_that_closes_nothing_ends_all_the_same(tiny: Plan, own: Path) -> None:
    text = own_run(tiny).model_dump_json()
    command = [sys.executable, "-c", NOT_CLOSED, text, str(own)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (3, "ends\n"), done.stderr


def children() -> list[int]:
    """The processes that this one started and that have not ended."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    text = " ".join((task / "children").read_text() for task in tasks.iterdir())
    return [
        int(pid) for pid in text.split()
        if "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text()
    ]  # fmt: skip


def test_every_validation_image_is_evaluated_once(tiny: Plan, own: Path) -> None:
    run = own_run(tiny)
    crop, files = EvaluationCrop(32, 40), list_files(OWN, own).validation
    expected = [crop(read_image(files.path(i))) for i in range(7)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for size in (1, 2, 3):
        found, labels = [], []
        for rank in range(size):
            for pixels, of in file_source(run, own, 0, rank, size).validation():
                found += [bytes(_bytes(image, mean, std)) for image in pixels]
                labels += of.tolist()
        assert sorted(found) == sorted(bytes(image.numpy().tobytes()) for image in expected)
        assert sorted(labels) == sorted(files.labels.tolist())


def _bytes(image: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> bytes:
    back = (image * std[:, None, None] + mean[:, None, None]) * 255
    return back.round().byte().contiguous().numpy().tobytes()


def test_a_file_that_does_not_decode_ends_the_training_with_its_name(
    tiny: Plan, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = own / "own/train/n02102040/n02102040_2.JPEG"
    victim.write_bytes(victim.read_bytes()[:200])
    spec = spec_file(own_run(tiny))
    command = ["train", str(spec), "--datasets", str(own), "--workers", "1"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"attention-ablation: {victim}: expected an image, but it does not")
    assert "Traceback" not in error
    reason = json.loads((spec.parent / "failure.json").read_text())["reason"]
    assert reason.startswith(str(victim))
    assert not children()


def test_killed_while_it_trains_on_files_it_ends_as_if_it_never_was(tiny: Plan, own: Path) -> None:
    spec = spec_file(own_run(tiny, epochs=6))
    command = ["train", str(spec), "--datasets", str(own), "--workers", "2"]
    assert main([*command[:-1], "0"]) == 0
    expected = history(spec.parent)
    weights = (spec.parent / "weights.pt").read_bytes()
    assert json.loads((spec.parent / "metrics.json").read_text())["dataset_fingerprint"] == (
        list_files(OWN, own).fingerprint
    )
    for path in spec.parent.iterdir():
        if path != spec:
            path.unlink()
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = set(spec.parent.glob("checkpoint-*.pt"))
        # A group of its own, to which the signal goes as a terminal or a scheduler sends it.
        process = subprocess.Popen(
            [sys.executable, "-m", "attention_ablation.cli", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if set(spec.parent.glob("checkpoint-*.pt")) - before:
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, number)
        output = process.communicate(timeout=300)[0]
        if process.returncode == 128 + number:
            assert "the next call goes on from there" in output
        else:
            assert process.returncode in (-number, 0), output
    assert main(command) == 0
    assert history(spec.parent) == expected
    assert (spec.parent / "weights.pt").read_bytes() == weights


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


def test_gradcam_looks_at_files_batch_by_batch(tiny: Plan, own: Path, tmp_path: Path) -> None:
    spec = spec_file(own_run(tiny))
    assert main(["train", str(spec), "--datasets", str(own)]) == 0
    found = explain(spec, tmp_path / "results/data", CPU, datasets=own)
    assert found["images"] == 7
    assert "hit_rate" not in found  # there are no boxes
    with np.load(spec.parent / "gradcam.npz") as shown:
        assert shown["index"].tolist() == [0, 2, 4]
        assert shown["image"].shape == (3, 3, 32, 32)
        files, crop = list_files(OWN, own).validation, EvaluationCrop(32, 40)
        for image, index in zip(shown["image"], shown["index"], strict=True):
            assert np.array_equal(image, crop(read_image(files.path(index))).numpy())
    (own / "own/val/n01440764/n01440764_0.JPEG").write_bytes(encoded(photo(5)))
    (own / "own/val/n01440764/touched").touch()  # so that the folder has changed
    with pytest.raises(UserError, match=f"{own}/own: expected the data set that"):
        explain(spec, tmp_path / "results/data", CPU, datasets=own)
