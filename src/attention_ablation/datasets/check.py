"""A data set as a whole, before hours are spent on it: its counts, and every image decoded."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from attention_ablation.base.errors import UserError
from attention_ablation.datasets import image_files
from attention_ablation.datasets.detection import DetectionData, load_detection
from attention_ablation.datasets.files import FileList, ImageFiles, find, kept_list, refused
from attention_ablation.datasets.image_files import read_sized
from attention_ablation.datasets.images import read_image
from attention_ablation.datasets.load import ImageData, load
from attention_ablation.datasets.records import (
    ClutteredScenes,
    Coco,
    Dataset,
    DetectionDataset,
    Images,
    Voc,
)

CHUNK = 64
# A file's path, and its width and height in px where an annotation says them.
File = tuple[str, tuple[int, int] | None]


def check(dataset: Dataset | DetectionDataset, folder: Path, datasets: Path, workers: int) -> bool:
    """Print what is wrong with a data set, file by file; return whether it is sound.

    Args:
        folder: where composed data sets and lists of files are kept. Its list is made anew.
        datasets: the folder that has each other data set by its name.
        workers: processes that decode. Raises UserError where one was killed.
    """
    try:
        data = _load(dataset, folder, datasets)
    except UserError as error:
        _say(str(error))
        return False
    splits = (data.train, data.validation)
    files = [file for split in splits for file in _files(split)]
    broken = 0
    try:
        with ProcessPoolExecutor(workers) as pool:
            for sentence in filter(None, pool.map(finding, files, chunksize=CHUNK)):
                broken += 1
                _say(sentence)
    except BrokenProcessPool:
        raise UserError(
            f"{dataset.name}: a process that decodes images was killed, as one is for want of "
            "memory; fewer --workers need less."
        ) from None
    train, validation = map(len, splits)
    _say(
        f"{dataset.name}: {dataset.classes:,} classes, {train:,} training and {validation:,} "
        f"validation images, fingerprint {data.fingerprint}. {getattr(data, 'skipped', '')}".strip()
    )
    if files:
        _say(f"{broken:,} of {len(files):,} files do not decode.")
    return not broken


@refused()
def _load(
    dataset: Dataset | DetectionDataset, folder: Path, datasets: Path
) -> ImageData | ImageFiles | DetectionData:
    if isinstance(dataset, ClutteredScenes | Voc | Coco):
        return load_detection(dataset, datasets, folder)
    if isinstance(dataset, Images):
        kept_list(find(dataset, datasets), folder).unlink(missing_ok=True)
    return load(dataset, folder, datasets)


def _files(split: object) -> list[File]:
    """Return a split's files, none where it is in memory."""
    if isinstance(split, FileList):
        return [(str(split.path(index)), None) for index in range(len(split))]
    if isinstance(split, image_files.ImageFiles):
        return list(zip(split.paths, split.sizes, strict=True))
    return []


def finding(file: File) -> str | None:
    """Return what is wrong with an image file, None where it decodes."""
    torch.set_num_threads(1)  # of the worker
    path, size = file
    try:
        read_sized(Path(path), size) if size else read_image(Path(path))
    except UserError as error:
        return str(error)
    return None


def _say(sentence: str) -> None:
    """Print a sentence as one line that every terminal takes, whatever a file's name holds."""
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence), flush=True)
