"""What is wrong with a data set, file by file, before a training meets it."""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from attention_ablation.base.errors import UserError
from attention_ablation.datasets import contract
from attention_ablation.datasets.contract import Dataset, DetectionDataset, Folders
from attention_ablation.datasets.image_folders import kept_list

CHUNK = 64  # files that a process is given at once
# A file's path, and its width and height in px where an annotation says them.
File = tuple[Path, tuple[int, int] | None]


def examine(dataset: Dataset | DetectionDataset, folders: Folders, workers: int) -> bool:
    """Print what is wrong with a data set, file by file; return whether it is sound.

    A list of its files is made anew. workers: processes that decode.

    Raises UserError where one of them was killed.
    """
    try:
        contract.require_dataset(dataset, folders.datasets)
        with contract.refused():
            kept_list(dataset.place(folders), folders.composed).unlink(missing_ok=True)
        data = contract.load(dataset, folders)
    except UserError as error:
        _say(str(error))
        return False
    splits = (data.train, data.validation)
    on_disk = [split for split in splits if hasattr(split, "file")]
    files: list[File] = [split.file(index) for split in on_disk for index in range(len(split))]
    broken = 0
    try:
        with ProcessPoolExecutor(workers) as pool:
            for sentence in filter(None, pool.map(_finding, files, chunksize=CHUNK)):
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


def _finding(file: File) -> str | None:
    """Return what is wrong with an image file, None where it decodes."""
    import torch

    from attention_ablation.datasets.reading.decode import read_image

    torch.set_num_threads(1)  # of the worker
    try:
        read_image(*file)
    except UserError as error:
        return str(error)
    return None


def _say(sentence: str) -> None:
    """Print a sentence as one line that every terminal takes, whatever a file's name holds."""
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence), flush=True)
