"""A folder of images of a user's own, and runs on it."""

from pathlib import Path
from typing import Any

from attention_ablation.datasets.image_folders import ImageFolder, list_files
from attention_ablation.feed.image_files import FileSource
from attention_ablation.feed.order import Part
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan
from tests.test_training import CPU, small_run

OWN = ImageFolder(
    name="folder", folder="own", classes=3, train_images=12, validation_images=7, image_size=32,
    resize=40,
)  # fmt: skip


def remove(path: Path) -> None:
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    path.rmdir()


def own_run(tiny: Plan, dataset: ImageFolder = OWN, **recipe: Any) -> Run:
    keys = {"dataset": dataset.model_dump(), "augmentation": "crop-flip", "batch_size": 4}
    return small_run(tiny, "resnet50+se", **keys | recipe)


def file_source(run: Run, own: Path, workers: int = 0, rank: int = 0, size: int = 1) -> FileSource:
    part = Part(run.spec.recipe, run.seed, rank, size)
    return FileSource(list_files(OWN, own), part, CPU, workers)
