"""Cluttered digits: one whole handwritten digit among fragments of others.

Real handwriting (scikit-learn's 1,797 digits, 8x8 px, from the UCI repository) composed in the
manner of cluttered translated MNIST (Mnih et al. 2014, arXiv:1406.6247). The base digits are
split into training and validation before anything is composed, so no validation stroke is ever
trained on. An image depends on (seed, split, index) only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from attention_ablation.base.model import Seed
from attention_ablation.datasets.contract import Composed, Dataset, Folders, Split
from attention_ablation.datasets.reading.data import ImageData, ImageSet
from attention_ablation.datasets.reading.kept import read_composed

VALIDATION_DIGITS = 500
# Ink of at least this grey level (of 255) belongs to a digit.
MASK_LEVEL = 64
# A fragment's side over the digit's: Mnih et al. cut 8 px from digits of 28 px.
FRAGMENT_SHARE = 0.3


class ClutteredDigits(Composed, Dataset):
    """One whole handwritten digit among fragments of others; composed, nothing is downloaded."""

    no_others: ClassVar = "flips and crops change what a digit is"
    classes: ClassVar = 10

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

    def compose(self, split: Split, indices: range) -> DigitImages:
        """Compose the images with these indices of a split.

        Each has one whole digit anywhere on the canvas; fragments, square cuts of other digits,
        fall anywhere, and where ink overlaps the stronger stays.
        """
        digits, digit_labels = base_digits(split, self.digit_size)
        n, size, digit = len(indices), self.image_size, self.digit_size
        cut = max(1, round(digit * FRAGMENT_SHARE))
        images = np.zeros((n, size, size), np.uint8)
        targets = np.zeros((n, size, size), np.uint8)
        chosen = np.empty(n, np.int64)
        # Columns: digit, x, y; and for each fragment digit, x and y in it, x and y on the canvas.
        place = size - digit + 1
        fragment = [len(digits), digit - cut + 1, digit - cut + 1, size - cut + 1, size - cut + 1]
        bounds = np.array([len(digits), place, place, *fragment * self.fragments])
        for i, index in enumerate(indices):
            draws = image_generator(self.seed, split, index).integers(bounds).tolist()
            chosen[i], x, y = draws[:3]
            paint(targets[i], digits[chosen[i]], x, y)
            for k in range(3, len(draws), 5):
                other, from_x, from_y, x, y = draws[k : k + 5]
                paint(images[i], digits[other, from_y : from_y + cut, from_x : from_x + cut], x, y)
        boxes = mask_boxes(targets >= MASK_LEVEL)
        return DigitImages(np.maximum(images, targets), digit_labels[chosen], boxes)

    def load(self, folders: Folders) -> ImageData:
        names = ("images", "labels", "boxes")
        # The fingerprint is not of the boxes: no result of a training depends on them.
        splits, facts = read_composed(self, folders.composed, names, names[:2])
        train, validation = (ImageSet(images.unsqueeze(1), *rest) for images, *rest in splits)
        return ImageData(train, validation, self.classes, **facts)


@dataclass(frozen=True)
class DigitImages:
    """images: (N, S, S) grey levels, uint8. labels: (N,) int64. boxes: (N, 4) x0, y0, x1, y1 around
    the target's ink, in px, int16, x1 and y1 exclusive.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    boxes: NDArray[np.int16]


@cache
def base_digits(split: Split, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return one split's digits, enlarged bicubically to (N, size, size), and their labels."""
    # Imported here: scikit-learn costs a second, and only the first training composes.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch import from_numpy
    from torch.nn.functional import interpolate

    pixels, labels = load_digits(return_X_y=True)
    train, validation = train_test_split(
        np.arange(len(labels)), test_size=VALIDATION_DIGITS, stratify=labels, random_state=0
    )
    chosen = train if split == "train" else validation
    small = from_numpy(pixels[chosen].reshape(-1, 1, 8, 8) * (255 / 16))
    large = interpolate(small, size=(size, size), mode="bicubic", align_corners=False)
    return large.squeeze(1).round().clamp(0, 255).byte().numpy(), labels[chosen].astype(np.int64)


def image_generator(seed: int, split: Split, index: int) -> np.random.Generator:
    """Return the random numbers of one image of a split."""
    # Counter-based: every image has a stream of its own, at no cost for the ones before.
    key = [seed, int(split == "validation")]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Return the boxes around (N, S, S) masks: (N, 4) x0, y0, x1, y1, px, x1 and y1 exclusive."""
    size = masks.shape[1]
    corners = []
    for axis in (1, 2):  # over rows for x, over columns for y
        hit = np.asarray(masks.any(axis=axis))
        corners.append((hit.argmax(axis=1), size - hit[:, ::-1].argmax(axis=1)))
    (x0, x1), (y0, y1) = corners
    return np.stack([x0, y0, x1, y1], axis=1).astype(np.int16)


def paint(image: NDArray[np.uint8], piece: NDArray[np.uint8], x: int, y: int) -> None:
    """Put a piece on an image; where ink overlaps the stronger stays."""
    window = image[y : y + piece.shape[0], x : x + piece.shape[1]]
    np.maximum(window, piece, out=window)
