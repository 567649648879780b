"""CIFAR in its own pickles: read, held to its counts, augmented and trained on."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets as published

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.cifar import Cifar10, Cifar100
from attention_ablation.datasets.contract import Folders, load, require_dataset
from attention_ablation.datasets.image_folders import ImageNet
from attention_ablation.datasets.reading.data import ImageData
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan
from attention_ablation.training.run import train
from tests.machines import ONE_CPU, in_one
from tests.test_training import history, small_run


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
    data = load(dataset, Folders(tmp_path, tmp_path))
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
    assert load(dataset, Folders(tmp_path, tmp_path)).fingerprint == data.fingerprint
    monkeypatch.setattr(type(dataset), "train_images", 50_000)
    with pytest.raises(UserError, match=r"expected 50,000 images of 100? classes, got \d+ of"):
        load(dataset, Folders(tmp_path, tmp_path))
    damaged = tmp_path / name / kind.base_folder / kind.train_list[-1][0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"missing or damaged .* data download {name} fetches"):
        load(dataset, Folders(tmp_path, tmp_path))
    with pytest.raises(UserError, match=f"nowhere/{name}: there is no such folder"):
        require_dataset(dataset, tmp_path / "nowhere")


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
        train(Run.model_validate(data), place, in_one(tmp_path / "results/data"), ONE_CPU)
    assert history(folders[0]) != history(folders[1])


def with_stem(run: Run) -> dict[str, Any]:
    spec = run.spec.model_dump()
    spec["backbone"]["stem"] = "cifar"
    return spec
