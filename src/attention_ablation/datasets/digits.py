"""Whole handwritten digits among fragments of others: one to classify, or several to detect.

Real handwriting (scikit-learn's 1,797 digits, 8x8 px, from the UCI repository) composed in the
manner of cluttered translated MNIST (Mnih et al. 2014, arXiv:1406.6247). The base digits are
split into training and validation before anything is composed, so no validation stroke is ever
trained on. An image depends on (seed, split, index) only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from attention_ablation.base.model import Seed
from attention_ablation.datasets.contract import Composed, Dataset, DetectionDataset, Folders, Split
from attention_ablation.datasets.reading.boxes import SceneSet
from attention_ablation.datasets.reading.data import DetectionData, ImageData, ImageSet
from attention_ablation.datasets.reading.kept import read_composed

CLASSES = tuple("0123456789")
VALIDATION_DIGITS = 500
# Ink of at least this grey level (of 255) belongs to a digit.
MASK_LEVEL = 64
# A fragment's side over the digit's: Mnih et al. cut 8 px from digits of 28 px.
FRAGMENT_SHARE = 0.3
# Two digits share less than this much of the smaller one's box, so that both can be read.
OVERLAP = 0.3
# A digit that finds no such place in so many tries is left out.
TRIES = 20

Box = tuple[int, int, int, int]


class ClutteredDigits(Composed, Dataset):
    """One whole handwritten digit among fragments of others; composed, nothing is downloaded."""

    no_others: ClassVar = "flips and crops change what a digit is"
    classes: ClassVar = len(CLASSES)

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
        """Compose images: a whole digit anywhere; fragments, square cuts of others, anywhere."""
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


class ClutteredScenes(Composed, DetectionDataset):
    """Several whole handwritten digits among fragments of others; composed, not downloaded."""

    no_others: ClassVar = "flips and crops change what a digit is"
    classes: ClassVar = len(CLASSES)

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

    def compose(self, split: Split, indices: range) -> Scenes:
        """Compose scenes: 1 to `digits` digits of many sides that hardly overlap; fragments."""
        images = np.zeros((len(indices), self.image_size, self.image_size), np.uint8)
        starts, boxes, labels = [0], [], []
        for image, index in zip(images, indices, strict=True):
            generator = image_generator(self.seed, split, index)
            # Of each digit: which, how large, and x and y of every try. Of each fragment: which,
            # how large, x and y in its digit, x and y on the canvas.
            each = 2 + 2 * TRIES
            draws = generator.random(1 + self.digits * each + 6 * self.fragments).tolist()
            placed: list[Box] = []
            for k in range(1 + int(draws[0] * self.digits)):
                which, size, *places = draws[1 + k * each : 1 + (k + 1) * each]
                side = self._side(size)
                digits, digit_labels = base_digits(split, side)
                chosen = int(which * len(digits))
                (ink,) = mask_boxes(digits[chosen : chosen + 1] >= MASK_LEVEL).tolist()
                place = _place(ink, places, self.image_size - side + 1, placed)
                if place:
                    paint(image, digits[chosen], *place)
                    placed.append(_moved(ink, *place))
                    labels.append(digit_labels[chosen] + 1)
            for k in range(1 + self.digits * each, len(draws), 6):
                self._paint_fragment(image, split, draws[k : k + 6])
            boxes += placed
            starts.append(len(boxes))
        return Scenes(
            images, np.array(starts), np.array(boxes, np.int16), np.array(labels, np.int64)
        )

    def _side(self, share: float) -> int:
        return self.smallest + int(share * (self.largest - self.smallest + 1))

    def _paint_fragment(
        self, image: NDArray[np.uint8], split: Split, draws: Sequence[float]
    ) -> None:
        which, size, *shares = draws
        side = self._side(size)
        digits, _ = base_digits(split, side)
        cut = max(1, round(side * FRAGMENT_SHARE))
        within, room = side - cut + 1, self.image_size - cut + 1
        from_x, from_y = int(shares[0] * within), int(shares[1] * within)
        digit = digits[int(which * len(digits))]
        piece = digit[from_y : from_y + cut, from_x : from_x + cut]
        paint(image, piece, int(shares[2] * room), int(shares[3] * room))

    def load(self, folders: Folders) -> DetectionData:
        names = ("images", "starts", "boxes", "labels")
        splits, facts = read_composed(self, folders.composed, names, names)
        train, validation = (SceneSet.of(*tensors) for tensors in splits)
        colours = {name: (facts[name],) * 3 for name in ("mean", "std")}
        return DetectionData(train, validation, CLASSES, **facts | colours)


@dataclass(frozen=True)
class Scenes:
    """images: (N, S, S) grey levels, uint8. starts: (N + 1,) int64.

    Of scene i the digits are rows starts[i] to starts[i + 1] of boxes: (M, 4), around each digit's
    own ink, as above, and of labels: (M,) int64, digit + 1.
    """

    images: NDArray[np.uint8]
    starts: NDArray[np.int64]
    boxes: NDArray[np.int16]
    labels: NDArray[np.int64]


def _place(
    ink: Box, shares: Sequence[float], room: int, placed: Sequence[Box]
) -> tuple[int, int] | None:
    """Return the first x, y where the ink leaves the placed boxes free enough."""
    for share_x, share_y in zip(shares[::2], shares[1::2], strict=True):
        place = int(share_x * room), int(share_y * room)
        if all(_overlap(_moved(ink, *place), other) < OVERLAP for other in placed):
            return place
    return None


def _moved(box: Box, x: int, y: int) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _overlap(a: Box, b: Box) -> float:
    """Return the intersection of two boxes over the smaller one's area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))


@cache
def base_digits(split: Split, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return one split's digits, enlarged bicubically to (N, size, size), and their labels."""
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
    """Return one image's own stream of numbers, counter-based: at no cost for the ones before."""
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
