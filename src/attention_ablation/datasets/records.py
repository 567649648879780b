"""Data sets as a recipe names them: what changes the images, not where they lie."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from attention_ablation.base.model import Model, Seed, canonical_json, short_hash

# Image folders keep each split in a folder of this name, with a folder for each class in it.
SPLITS = {"train": "train", "validation": "val"}
# What `attention-ablation data download` knows, each with its sizes where there are several.
DOWNLOADS = (
    *("cifar10", "cifar100"),
    *("imagenette-full", "imagenette-320px", "imagenette-160px"),
    "imagenet",
)

# Of ImageNet's training images, by channel, 0 to 1.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ClutteredDigits(Model):
    """One whole handwritten digit among fragments of others; composed, nothing is downloaded."""

    augmentations: ClassVar = ("none",)
    in_memory: ClassVar = True

    name: Literal["cluttered-digits"]
    version: Literal[1] = Field(
        1, description="The way of composing; another one is another data set."
    )
    image_size: int = Field(ge=8, description="Side of the canvas, px.")
    digit_size: int = Field(ge=8, description="Side to which the 8x8 px digit is enlarged, px.")
    fragments: int = Field(ge=0, description="Fragments of other digits on each image.")
    train_images: int = Field(ge=1)
    validation_images: int = Field(ge=1)
    seed: Seed = Field(0, description="Seed of the composition, apart from the runs' seeds.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.digit_size > self.image_size:
            raise ValueError(
                f"expected digit_size of at most image_size ({self.image_size}), "
                f"got {self.digit_size}"
            )
        return self

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 10

    @property
    def prepared(self) -> str:
        """Name of the file that holds the composed images, made once and read by every run."""
        return f"{self.name}_{short_hash(canonical_json(self.model_dump()))}.npz"


class _Cifar(Model):
    """32x32 px colour images (Krizhevsky 2009): 50,000 to train on, 10,000 to evaluate."""

    augmentations: ClassVar = ("none", "pad-crop-flip")
    in_memory: ClassVar = True

    @property
    def image_size(self) -> int:
        """Side of every image, px."""
        return 32

    @property
    def train_images(self) -> int:
        """Images in the training split."""
        return 50_000

    @property
    def validation_images(self) -> int:
        """Images in the test split."""
        return 10_000

    @property
    def prepared(self) -> None:
        """No file is composed: the images are read where they lie."""


class Cifar10(_Cifar):
    """CIFAR-10: 10 classes."""

    name: Literal["cifar10"]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 10


class Cifar100(_Cifar):
    """CIFAR-100: its 100 fine classes."""

    name: Literal["cifar100"]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 100


class _Images(Model):
    """Image files of any size in a folder for each class: `train/<class>` and `val/<class>`."""

    augmentations: ClassVar = ("none", "crop-flip")
    in_memory: ClassVar = False

    image_size: int = Field(224, ge=32, description="Side of the crop, px.")
    resize: int = Field(256, ge=32, description="Shorter side before the evaluation crop, px.")

    @model_validator(mode="after")
    def _contains_crop(self) -> Self:
        if self.resize < self.image_size:
            raise ValueError(
                f"expected a resize of at least image_size ({self.image_size}), got {self.resize}"
            )
        return self

    @property
    def prepared(self) -> None:
        """No file is composed: the images are read where they lie."""


class ImageNet(_Images):
    """ILSVRC 2012: 1,281,167 training and 50,000 validation images of 1,000 classes."""

    name: Literal["imagenet"]

    @property
    def folder(self) -> str:
        """Where it lies below the folder of the data sets."""
        return "imagenet"

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 1000

    @property
    def train_images(self) -> int:
        """Images in the training split."""
        return 1_281_167

    @property
    def validation_images(self) -> int:
        """Images in the validation split."""
        return 50_000


class Imagenette(_Images):
    """Ten easily told classes of ImageNet (version 2: 9,469 training, 3,925 validation images)."""

    name: Literal["imagenette"]
    size: Literal["full", "320px", "160px"] = Field(
        "320px", description="Which of the archives: the shorter side of its images."
    )

    @property
    def folder(self) -> str:
        """Where it lies below the folder of the data sets."""
        suffix = "" if self.size == "full" else "-" + self.size.removesuffix("px")
        return f"imagenette/imagenette2{suffix}"

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 10

    @property
    def train_images(self) -> int:
        """Images in the training split."""
        return 9_469

    @property
    def validation_images(self) -> int:
        """Images in the validation split."""
        return 3_925


class ImageFolder(_Images):
    """A user's own images, a folder for each class; the counts are checked on first use."""

    name: Literal["folder"]
    folder: str = Field(description="Its name below the folder of the data sets.")
    classes: int = Field(ge=2)
    train_images: int = Field(ge=1)
    validation_images: int = Field(ge=1)

    @field_validator("folder")
    @classmethod
    def _plain(cls, folder: str) -> str:
        if not re.fullmatch(r"[\w-][\w.-]*", folder):
            raise ValueError(
                f"expected the name of a folder (letters, digits, '.', '_', '-'), got '{folder}'; "
                "link it there under such a name"
            )
        return folder


class ClutteredScenes(Model):
    """Several whole handwritten digits among fragments of others; composed, not downloaded."""

    in_memory: ClassVar = True
    name: Literal["cluttered-scenes"]
    version: Literal[1] = Field(
        1, description="The way of composing; another one is another data set."
    )
    image_size: int = Field(ge=16, description="Side of the canvas, px.")
    smallest: int = Field(ge=8, description="Least side to which an 8x8 px digit is enlarged, px.")
    largest: int = Field(ge=8, description="Greatest such side, px.")
    digits: int = Field(ge=1, description="Whole digits on an image, at most; at least one.")
    fragments: int = Field(ge=0, description="Fragments of other digits on each image.")
    train_images: int = Field(ge=1)
    validation_images: int = Field(ge=1)
    seed: Seed = Field(0, description="Seed of the composition, apart from the runs' seeds.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.smallest <= self.largest <= self.image_size:
            raise ValueError(
                f"expected smallest <= largest <= image_size, got {self.smallest}, "
                f"{self.largest}, {self.image_size}"
            )
        return self

    @property
    def classes(self) -> int:
        """Number of classes, without the background."""
        return 10

    @property
    def prepared(self) -> str:
        """Name of the file that holds the composed images, made once and read by every run."""
        return f"{self.name}_{short_hash(canonical_json(self.model_dump()))}.npz"


class Voc(Model):
    """VOC 2007 and 2012 trainval; VOC 2007 test: 20 classes (Everingham et al. 2010)."""

    in_memory: ClassVar = False
    # Below the folder of the data sets; without them there is nothing to read.
    lists: ClassVar = (
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt",
        "VOCdevkit/VOC2007/ImageSets/Main/test.txt",
        "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt",
    )
    name: Literal["voc07+12"]
    image_size: int = Field(300, ge=32, description="Side to which every image is resized, px.")

    @property
    def classes(self) -> int:
        """Number of classes, without the background."""
        return 20

    @property
    def train_images(self) -> int:
        """Images of 2007 trainval (5,011) and 2012 trainval (11,540)."""
        return 16_551

    @property
    def validation_images(self) -> int:
        """Images of 2007 test."""
        return 4_952

    @property
    def prepared(self) -> None:
        """No file is composed: the images are read where they lie."""


class Coco(Model):
    """COCO 2014: train and 35k of val to train on, minival (5k) to evaluate; 80 classes."""

    in_memory: ClassVar = False
    lists: ClassVar = (
        "coco2014/annotations/instances_train2014.json",
        "coco2014/annotations/instances_val2014.json",
    )
    name: Literal["coco2014"]
    image_size: int = Field(600, ge=32, description="Shorter side, px.")
    longest: int = Field(1000, ge=32, description="Longer side at most, px.")

    @property
    def classes(self) -> int:
        """Number of classes, without the background."""
        return 80

    @property
    def train_images(self) -> int:
        """Images of train (82,783) and valminusminival (35,504)."""
        return 118_287

    @property
    def validation_images(self) -> int:
        """Images of minival."""
        return 5_000

    @property
    def prepared(self) -> None:
        """No file is composed: the images are read where they lie."""


# Those that are kept in memory, and those whose files are read as they are needed.
Cifar = Cifar10 | Cifar100
Images = ImageNet | Imagenette | ImageFolder
Dataset = Annotated[ClutteredDigits | Cifar | Images, Field(discriminator="name")]
DetectionDataset = Annotated[ClutteredScenes | Voc | Coco, Field(discriminator="name")]
