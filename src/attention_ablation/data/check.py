"""A data set as a whole, before hours are spent on it: its counts, and every image decoded."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from attention_ablation.data.detection import DetectionSet, load_detection
from attention_ablation.data.files import ImageFiles
from attention_ablation.data.load import load
from attention_ablation.study.datasets import ClutteredScenes, Coco, Dataset, DetectionDataset, Voc
from attention_ablation.study.errors import UserError

CHUNK = 64


def check(dataset: Dataset | DetectionDataset, folder: Path, datasets: Path, workers: int) -> bool:
    """Print what is wrong with a data set, file by file; return whether it is sound.

    Args:
        folder: where composed data sets and lists of files are kept. The list is made anew.
        datasets: the folder that has each other data set by its name.
        workers: processes that decode.
    """
    for path in folder.glob("*.files.json"):
        path.unlink()
    try:
        if isinstance(dataset, ClutteredScenes | Voc | Coco):
            return _check_detection(dataset, folder, datasets, workers)
        data = load(dataset, folder, datasets)
    except UserError as error:
        print(error)
        return False
    if not isinstance(data, ImageFiles):
        sets = (data.train, data.validation)
        print(_summary(dataset, [len(images.labels) for images in sets], data.fingerprint))
        return True
    counts = [len(files.labels) for files in (data.train, data.validation)]
    broken = 0
    for sentence in _broken(data, workers):
        broken += 1
        print(sentence, flush=True)
    print(_summary(dataset, counts, data.fingerprint))
    print(f"{broken:,} of {sum(counts):,} files do not decode.")
    return not broken


def _check_detection(dataset: DetectionDataset, folder: Path, datasets: Path, workers: int) -> bool:
    data = load_detection(dataset, datasets, folder)
    broken = 0
    # Threads are enough: decoding does not hold the interpreter.
    with ThreadPoolExecutor(workers) as pool:
        for images in (data.train, data.validation):
            for sentence in filter(None, pool.map(partial(_undecoded, images), range(len(images)))):
                broken += 1
                print(sentence, flush=True)
    counts = [len(data.train), len(data.validation)]
    print(_summary(dataset, counts, data.fingerprint) + f" {data.skipped}" * bool(data.skipped))
    print(f"{broken:,} of {sum(counts):,} images do not decode.")
    return not broken


def _undecoded(images: DetectionSet, index: int) -> str | None:
    try:
        images[index]
    except UserError as error:
        return str(error)
    return None


def _broken(data: ImageFiles, workers: int) -> Iterator[str]:
    paths = [
        str(files.path(index))
        for files in (data.train, data.validation)
        for index in range(len(files.labels))
    ]
    with ProcessPoolExecutor(workers) as pool:
        for sentence in pool.map(finding, paths, chunksize=CHUNK):
            if sentence:
                yield sentence


def finding(path: str) -> str | None:
    """Return what is wrong with an image file, None where it decodes."""
    # Imported in the worker, whose threads are its own.
    import torch

    from attention_ablation.data.images import read_image

    torch.set_num_threads(1)
    try:
        read_image(Path(path))
    except UserError as error:
        return str(error)
    return None


def _summary(dataset: Dataset | DetectionDataset, counts: list[int], fingerprint: str) -> str:
    train, validation = counts
    return (
        f"{dataset.name}: {dataset.classes:,} classes, {train:,} training and {validation:,} "
        f"validation images, fingerprint {fingerprint}."
    )
