"""Composed data sets: made once, into a file that every run reads."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from attention_ablation.datasets.contract import Composed
from attention_ablation.datasets.reading.data import fingerprint
from attention_ablation.datasets.reading.kept import Arrays, keep


def composed_arrays(dataset: Composed, folder: Path) -> Arrays:
    """Return what is composed of each split, by names such as `train_images`.

    `composed_with` are the packages and versions that may change a pixel. The data set is composed
    where it is not in `folder`, and again, with a warning, where its file is not as it was written.
    """

    def compose() -> Arrays:
        versions = [f"{name} {version(name)}" for name in ("numpy", "scikit-learn", "torch")]
        arrays = {"composed_with": np.array(", ".join(versions))}
        train = dataset.compose("train", range(dataset.train_images))
        validation = dataset.compose("validation", range(dataset.validation_images))
        for split, images in (("train", train), ("validation", validation)):
            arrays |= {f"{split}_{name}": values for name, values in vars(images).items()}
        return arrays

    return keep(folder / dataset.prepared, compose)


def spread(arrays: Arrays) -> tuple[float, float]:
    """Return mean and standard deviation of all training pixels, 0 to 1."""
    pixels = arrays["train_images"]
    return float(pixels.mean() / 255), float(pixels.std() / 255)


def composed_fingerprint(arrays: Arrays, names: Sequence[str]) -> str:
    """Return a fingerprint of the named arrays of both splits."""
    return fingerprint(*(arrays[f"{s}_{name}"] for s in ("train", "validation") for name in names))
