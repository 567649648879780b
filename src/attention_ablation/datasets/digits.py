"""Cluttered digits: one whole handwritten digit among fragments of others.

Real handwriting (scikit-learn's 1,797 digits, 8x8 px, from the UCI repository) composed in the
manner of cluttered translated MNIST (Mnih et al. 2014, arXiv:1406.6247). The base digits are
split into training and validation before anything is composed, so no validation stroke is ever
trained on. An image depends on (seed, split, index) only.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import from_numpy
from torch.nn.functional import interpolate

from attention_ablation.datasets.records import ClutteredDigits

Split = Literal["train", "validation"]
VALIDATION_DIGITS = 500
# Ink of at least this grey level (of 255) belongs to the target's mask.
MASK_LEVEL = 64
# A fragment's side over the digit's: Mnih et al. cut 8 px from digits of 28 px.
FRAGMENT_SHARE = 0.3


@dataclass(frozen=True)
class DigitImages:
    """Composed images.

    images: (N, S, S) grey levels, uint8. labels: (N,) int64. boxes: (N, 4) x0, y0, x1, y1 around
    the target's mask, in px, int16, x1 and y1 exclusive. masks: (N, S, S) bool, the target's ink.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    boxes: NDArray[np.int16]
    masks: NDArray[np.bool_]


@cache
def base_digits(split: Split, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return one split's digits, enlarged bicubically to (N, size, size), and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    train, validation = train_test_split(
        np.arange(len(labels)), test_size=VALIDATION_DIGITS, stratify=labels, random_state=0
    )
    chosen = train if split == "train" else validation
    small = from_numpy(pixels[chosen].reshape(-1, 1, 8, 8) * (255 / 16))
    large = interpolate(small, size=(size, size), mode="bicubic", align_corners=False)
    return large.squeeze(1).round().clamp(0, 255).byte().numpy(), labels[chosen].astype(np.int64)


def compose(dataset: ClutteredDigits, split: Split, indices: range) -> DigitImages:
    """Compose the images with these indices of a split.

    Each has one whole digit anywhere on the canvas; fragments, square cuts of other digits, fall
    anywhere, and where ink overlaps the stronger stays.
    """
    digits, digit_labels = base_digits(split, dataset.digit_size)
    n, size, digit = len(indices), dataset.image_size, dataset.digit_size
    cut = max(1, round(digit * FRAGMENT_SHARE))
    images = np.zeros((n, size, size), np.uint8)
    targets = np.zeros((n, size, size), np.uint8)
    chosen = np.empty(n, np.int64)
    # Columns: digit, x, y; and for each fragment digit, x and y in it, x and y on the canvas.
    place = size - digit + 1
    fragment = [len(digits), digit - cut + 1, digit - cut + 1, size - cut + 1, size - cut + 1]
    bounds = np.array([len(digits), place, place, *fragment * dataset.fragments])
    for i, index in enumerate(indices):
        draws = image_generator(dataset.seed, split, index).integers(bounds).tolist()
        chosen[i], x, y = draws[:3]
        targets[i, y : y + digit, x : x + digit] = digits[chosen[i]]
        for k in range(3, len(draws), 5):
            other, from_x, from_y, x, y = draws[k : k + 5]
            window = images[i, y : y + cut, x : x + cut]
            piece = digits[other, from_y : from_y + cut, from_x : from_x + cut]
            np.maximum(window, piece, out=window)
    masks = targets >= MASK_LEVEL
    return DigitImages(np.maximum(images, targets), digit_labels[chosen], mask_boxes(masks), masks)


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
