"""Print how fast images come: ours beside torchvision's reference loader, round by round.

    python -m benchmarks.loader [--write]

Both read the same generated files with the same number of workers, in turns, so that what else the
machine does meets both; the median of the rounds' ratios counts. `--write` keeps every round in
benchmarks/results/loader.csv. benchmarks/README.md holds its output.
"""

import argparse
import gc
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder as ReferenceFolder
from torchvision.transforms import v2

from attention_ablation.datasets.contract import IMAGENET_MEAN, IMAGENET_STD
from attention_ablation.datasets.image_folders import ImageFolder, list_files
from attention_ablation.datasets.reading.data import FileList, ImageData, ImageSet
from attention_ablation.feed.augment import crop_box, draw, training_crop
from attention_ablation.feed.batches import Batch, MemorySource
from attention_ablation.feed.image_files import FileSource
from attention_ablation.feed.order import Part
from attention_ablation.spec.recipes import ClassificationRecipe
from benchmarks.quick import header

CPU = torch.device("cpu")
HEIGHT, WIDTH, CLASSES = 375, 500, 2
# The batch is the default of torchvision's reference script, for each GPU.
FILES, BATCH, ROUNDS, WORKERS = 256, 32, 9, (1, 2)
SMALL_IMAGES, SMALL_BATCH = 2_560, 128
TARGETS = {"files, for a GPU": 2, "files, for a CPU": 2, "32 px in memory": 5}


def main() -> None:
    """Print two Markdown tables, of files and of images in memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep every round as CSV")
    options = parser.parse_args()
    torch.set_num_threads(1)
    header()
    print(f"JPEG decoder: {'simplejpeg' if find_spec('simplejpeg') else 'Pillow'}\n")
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        own = write_photos(Path(folder))
        for name, kind in (("files, for a GPU", Bytes), ("files, for a CPU", FileSource)):
            for workers in WORKERS:
                rounds += compare(name, workers, file_loaders(own, workers, kind))
        for line in crops(own):
            print(line)
    for workers in WORKERS:
        rounds += compare("32 px in memory", workers, memory_loaders(workers))
    table(rounds)
    if options.write:
        pd.DataFrame(rounds).to_csv("benchmarks/results/loader.csv", index=False)


# The files


def photo(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return noise of all sizes, the finer the fainter, as detail is in a photograph."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for octave in range(1, 10):
        cells = 2**octave
        noise = rng.normal(size=(cells * HEIGHT // WIDTH + 2, cells, 3)).astype(np.float32)
        grey = noise.mean(axis=2, keepdims=True)
        coarse = torch.from_numpy(0.3 * noise + 1.2 * grey).permute(2, 0, 1)[None]
        size = (HEIGHT, WIDTH)
        fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
        image += 50 * 0.82**octave * fine[0].permute(1, 2, 0).numpy()
    return (image + 120).clip(0, 255).astype(np.uint8)


def write_photos(folder: Path) -> Path:
    """Write FILES photographs, print their sizes, and return the folder of data sets."""
    rng = np.random.default_rng(0)
    distinct = [Image.fromarray(photo(rng)) for _ in range(32)]
    sizes = []
    for split, count in (("train", FILES), ("val", CLASSES)):
        for i in range(count):
            place = folder / "own" / split / f"class{i % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            distinct[i % len(distinct)].save(buffer, "JPEG", quality=QUALITY)
            (place / f"{i}.JPEG").write_bytes(buffer.getvalue())
            sizes.append(len(buffer.getvalue()))
    print(
        f"{FILES} JPEG files of {WIDTH}x{HEIGHT} px, quality {QUALITY}, "
        f"{statistics.mean(sizes) / 1000:.0f} kB on average\n"
    )
    return folder


QUALITY = 95


def recipe(dataset: dict[str, Any], augmentation: str, batch: int) -> ClassificationRecipe:
    """Return a recipe of which only data, augmentation and batch matter here."""
    return ClassificationRecipe.model_validate(
        {
            "dataset": dataset,
            "augmentation": augmentation,
            "epochs": 1,
            "batch_size": batch,
            "learning_rate": 0.1,
            "weight_decay": 0.0,
            "schedule": {"name": "step"},
        }
    )


OWN = ImageFolder(
    name="folder", folder="own", classes=CLASSES, train_images=FILES, validation_images=CLASSES
)


class Loader:
    """Something that yields an epoch of normalised batches again and again."""

    def __init__(self, epoch: Callable[[int], Iterable[Any]]) -> None:
        self._epoch = epoch
        self._number = 0

    def rate(self) -> float:
        """Return the images/s of an epoch."""
        self._number += 1
        batches = iter(self._epoch(self._number))
        start = time.perf_counter()
        images = sum(len(labels) for _, labels in batches)
        return images / (time.perf_counter() - start)


class Bytes(FileSource):
    """Batches as they go to a GPU, which normalises them."""

    def on_device(self, batch: Batch) -> Batch:
        """Return what a worker made."""
        return batch


def file_loaders(folder: Path, workers: int, kind: type[FileSource]) -> dict[str, Loader]:
    """Ours, and torchvision's: ImageFolder, Pillow and the reference's classification preset."""
    part = Part(recipe(OWN.model_dump(), "crop-flip", BATCH), 0, 0, 1)
    source = kind(list_files(OWN, folder), part, CPU, workers)
    reference = reference_loader(folder, workers, BATCH)
    return {
        "ours": Loader(lambda epoch: source.training(epoch, 0)),
        "reference": Loader(lambda _: reference),
    }


def reference_loader(folder: Path, workers: int, batch: int) -> DataLoader[Any]:
    """Return a loader as in torchvision's classification reference."""
    preset = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return DataLoader(
        ReferenceFolder(str(folder / "own/train"), preset),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        drop_last=True,
    )


class Small(Dataset[tuple[torch.Tensor, int]]):
    """Images of 32 px with torchvision's transforms v2, one by one."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), index


def memory_loaders(workers: int) -> dict[str, Loader]:
    """Ours, without workers, and a DataLoader with the same transforms."""
    images = torch.randint(256, (SMALL_IMAGES, 3, 32, 32), dtype=torch.uint8)
    chosen = ImageSet(images, torch.arange(SMALL_IMAGES))
    mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)
    data = ImageData(chosen, chosen, 10, mean, std, "none")
    part = Part(recipe({"name": "cifar10"}, "pad-crop-flip", SMALL_BATCH), 0, 0, 1)
    source = MemorySource(data, part, CPU)
    reference = DataLoader(
        Small(images),
        batch_size=SMALL_BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        drop_last=True,
    )
    return {
        "ours": Loader(lambda epoch: source.training(epoch, 0)),
        "reference": Loader(lambda _: reference),
    }


# The comparison


def compare(what: str, workers: int, loaders: dict[str, Loader]) -> list[dict[str, Any]]:
    """Return every round's rates, after one that starts the workers."""
    gc.collect()  # loaders of before; a worker that inherits one complains when it collects it
    rounds = []
    for number in range(ROUNDS + 1):
        rates = {name: loader.rate() for name, loader in loaders.items()}
        if number:
            ratio = rates["ours"] / rates["reference"]
            rounds.append(
                {"images": what, "workers": workers, "round": number}
                | {name: round(rate, 1) for name, rate in rates.items()}
                | {"ratio": round(ratio, 3)}
            )
    return rounds


def crops(folder: Path) -> list[str]:
    """Return how far our crops are from Pillow's of the same boxes, in grey levels of 255."""
    files = list_files(OWN, folder).train
    assert isinstance(files, FileList)
    differences = []
    for index in range(128):
        numbers = draw(0, 1, index)
        top, left, height, width = crop_box(HEIGHT, WIDTH, numbers)
        with Image.open(files.path(index)) as opened:
            box = opened.convert("RGB").crop((left, top, left + width, top + height))
        expected = np.asarray(box.resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
        if numbers[-1] < 0.5:
            expected = expected[:, ::-1]
        ours = training_crop(files[index][0], 224, 0, 1, index).permute(1, 2, 0).numpy()
        differences.append(np.abs(ours - expected))
    return [
        f"Crops of the same boxes, 128 images, ours and Pillow's: mean absolute difference "
        f"{np.mean(differences):.4f} of 255, largest {np.max(differences)}.\n"
    ]


def table(rounds: list[dict[str, Any]]) -> None:
    """Print the medians."""
    print("Images/s, medians of the rounds:\n")
    print("| images | workers | ours | reference | ratio | lowest and highest | target |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for what, target in TARGETS.items():
        for workers in WORKERS:
            chosen = [r for r in rounds if (r["images"], r["workers"]) == (what, workers)]
            ours, theirs, ratio = (
                statistics.median(r[key] for r in chosen) for key in ("ours", "reference", "ratio")
            )
            ratios = [r["ratio"] for r in chosen]
            print(
                f"| {what} | {workers} | {ours:,.0f} | {theirs:,.0f} | {ratio:.2f} | "
                f"{min(ratios):.2f}, {max(ratios):.2f} | {target} |"
            )


if __name__ == "__main__":
    main()
