"""What a data set has to have: a record in a file of this package, which is found by its name.

Planning imports every file directly in this package, so torch is imported in `load` only.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from attention_ablation.base.errors import UserError, brief, few
from attention_ablation.base.model import Model, canonical_json, short_hash
from attention_ablation.base.registry import any_of
from attention_ablation.datasets.reading.data import DetectionData, ImageData, ImageSet

Split = Literal["train", "validation"]
# Of ImageNet's training images, by channel, 0 to 1.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
R = TypeVar("R", bound="Record")


@dataclass(frozen=True)
class Folders:
    """Where data are on this machine; never part of a spec, because it changes no result.

    composed: composed data sets and lists of files. datasets: the others, each by its name.
    """

    composed: Path
    datasets: Path


class Record(Model):
    """A data set as a recipe names it: the fields that change its images, and all else about it."""

    augmentations: ClassVar[tuple[str, ...]]  # of a training
    no_others: ClassVar[str] = ""  # why there are no others, for the sentence that says so
    in_memory: ClassVar[bool]  # its images need no worker processes
    lists: ClassVar[tuple[str, ...]] = ()  # files below the folder of the data sets
    downloads: ClassVar[tuple[str, ...]] = ()  # the names of `data download`
    guide: ClassVar[str]

    if TYPE_CHECKING:  # fields of some, constants of others

        @property
        def name(self) -> str: ...
        @property
        def image_size(self) -> int: ...
        @property
        def classes(self) -> int: ...  # without a background
        @property
        def train_images(self) -> int: ...
        @property
        def validation_images(self) -> int: ...

    @property
    def prepared(self) -> str | None:
        """The name of the file into which it is composed; None where nothing is composed."""
        return None

    def place(self, folders: Folders) -> Path:
        """Return where it lies: in its `folder` where it has one, else under its name."""
        return folders.datasets / getattr(self, "folder", self.name)

    def require(self, datasets: Path) -> None:
        """Raise UserError where it is not there; what is in its files is seen by `load`.

        datasets: the folder that has each data set by its name.
        """
        root = self.place(Folders(datasets, datasets))
        if not root.is_dir():
            fetched = self.name in self.downloads
            makes = f"attention-ablation data download {self.name} makes it. " if fetched else ""
            raise UserError(f"{root}: there is no such folder; {makes}{self.guide}")
        for name in self.lists:
            required(datasets / name, self.guide)

    @classmethod
    def download(cls, name: str, folder: Path) -> None:
        """Fetch one of `downloads` into a folder; raises OSError or RuntimeError."""
        raise NotImplementedError

    def check_augmentation(self, augmentation: str) -> None:
        """Raise ValueError for one that this data set does not have."""
        if augmentation not in self.augmentations:
            valid = " or ".join(f"'{name}'" for name in self.augmentations)
            reason = f": {self.no_others}" if self.no_others else ""
            raise ValueError(
                f"expected augmentation {valid} for {self.name}, got '{augmentation}'{reason}"
            )


class Dataset(Record):
    """A data set for classification."""

    guide: ClassVar = "docs/datasets.md shows how it must lie."

    if TYPE_CHECKING:

        @property
        def resize(self) -> int: ...  # of image files: px, the shorter side before a centre crop

    def load(self, folders: Folders) -> ImageData:
        """Return it; raises UserError where it is not there or not as it should be."""
        raise NotImplementedError


class DetectionDataset(Record):
    """A data set for detection."""

    augmentations: ClassVar[tuple[str, ...]] = ("none", "flip", "ssd")
    guide: ClassVar = "docs/detection-data.md says how the data lie."

    @property
    def longest_side(self) -> int | None:
        """At most `longest` px where images keep their proportion; None where they are squares."""
        return getattr(self, "longest", None)

    def load(self, folders: Folders) -> DetectionData:
        raise NotImplementedError


class Composed(Record):
    """A data set that is composed, once, into a file that every run reads."""

    augmentations: ClassVar[tuple[str, ...]] = ("none",)
    in_memory: ClassVar = True

    @property
    def prepared(self) -> str:
        return f"{self.name}_{short_hash(canonical_json(self.model_dump()))}.npz"

    def place(self, folders: Folders) -> Path:
        return folders.composed / self.prepared

    def require(self, datasets: Path) -> None:
        return  # the first run that needs it composes it

    def compose(self, split: Split, indices: range) -> Any:
        """Return the images with these indices of a split: an object whose fields are arrays."""
        raise NotImplementedError


def by_name(of: type[Record]) -> Any:
    """Return the type of a field that holds any record of a class; its `name` says which."""
    return any_of(__package__, of, "name")


@contextmanager
def refused() -> Iterator[None]:
    """Turn what the system refuses while data are read, such as a folder's list, into UserError."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: it" if error.filename else "the data"
        raise UserError(f"{what} cannot be read: {error.strerror or error}.") from None


@refused()
def require_dataset(dataset: Record, datasets: Path) -> None:
    """Raise UserError where a data set is not there at all. datasets: has each by its name."""
    dataset.require(datasets)


@refused()
def load(dataset: Dataset | DetectionDataset, folders: Folders) -> Any:
    """Return a data set: `ImageData` or `DetectionData`.

    Raises UserError where it cannot be read, or is not in memory what its record says.
    """
    try:
        data: Any = dataset.load(folders)
    except (UserError, OSError):
        raise
    except Exception as error:  # of whatever library reads it
        traceback.print_exc()
        place = dataset.place(folders)
        raise UserError(f"{place}: reading it failed with {brief(error)}; see above.") from error
    if isinstance(dataset, Dataset) and dataset.in_memory:
        _check_memory(dataset, data, dataset.place(folders))
    return data


def _check_memory(dataset: Dataset, data: ImageData, place: Path) -> None:
    side, classes = dataset.image_size, dataset.classes
    for images, split in (
        (dataset.train_images, data.train),
        (dataset.validation_images, data.validation),
    ):
        if not isinstance(split, ImageSet):
            raise UserError(f"{place}: expected an ImageSet in memory, got {type(split).__name__}.")
        shape, labels = tuple(split.images.shape), split.labels
        if shape not in ((images, 1, side, side), (images, 3, side, side)) or len(labels) != images:
            raise UserError(
                f"{place}: expected {images:,} images, (1 or 3, {side}, {side}), and as many "
                f"labels, got {shape} and {len(labels):,} labels."
            )
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise UserError(
                f"{place}: expected labels from 0 to {classes - 1}, got some from "
                f"{int(labels.min())} to {int(labels.max())}."
            )


def required(path: Path, guide: str = DetectionDataset.guide) -> Path:
    """Return a path that exists; raises UserError that says what is in its nearest folder."""
    if path.exists():
        return path
    there = next(folder for folder in path.parents if folder.is_dir())
    names = sorted(entry.name for entry in there.iterdir())
    found = few(names, 8) if names else "nothing"
    raise UserError(f"expected {path}, but {there} has {found}; {guide}")
