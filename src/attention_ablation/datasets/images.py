"""One image from its file: decoded, cropped and resized as torchvision's transforms v2 do it.

Everything stays uint8; the division by 255 and the normalisation are left to the batch, on the
device.
"""

import io
import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes

try:
    import simplejpeg
except ImportError:  # Pillow gives the same pixels, in twice the time
    simplejpeg = None

JPEG = b"\xff\xd8"
# Pillow's names of the formats of files.ENDINGS. Others run programs, such as Ghostscript.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
# Pillow's limit, above which it refuses an image: as RGB 537 MB.
MOST_PIXELS = 178_956_970
# Of the longer side over the shorter, which an evaluation enlarges to hundreds of px.
MOST_SLENDER = 1_000
# RandomResizedCrop's, as torchvision and the reference recipes have them (Szegedy et al. 2015).
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def read_image(path: Path) -> Tensor:
    """Return a file's image, (3, H, W) uint8 RGB, whatever its name ends in.

    EXIF's orientation is not applied, as in torchvision's ImageFolder. Raises UserError, naming
    the file, where it cannot be read, is cut short, is no image, or has too many pixels.
    """
    content = read_bytes(path, most=8 * MOST_PIXELS)  # four colours of 16 bits
    try:
        return decode(content)
    except Exception as error:  # decoders raise what they stumble over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, UnidentifiedImageError):
            formats = ", ".join(FORMATS)
            reason = f"it is none of {formats}" if content else "it is empty"
        raise UserError(
            f"{path}: expected an image, but it does not decode: {reason}. Replace the file; "
            "`attention-ablation data check` lists all such files."
        ) from None


def decode(content: bytes) -> Tensor:
    """Return an image, (3, H, W) uint8 RGB: a JPEG by simplejpeg, others by Pillow.

    Colours of four (CMYK, as a few of ImageNet's files have), greys and palettes become RGB as in
    Pillow, to which simplejpeg's pixels are equal. Of several images the first is taken. Raises
    ValueError for an image that is too slender, and whatever Pillow raises.
    """
    if simplejpeg is not None and content.startswith(JPEG):
        # What it does not take, or not without a warning, is left to Pillow; so are colours of
        # four, which it rounds otherwise, and what Pillow refuses as too large.
        with suppress(ValueError):
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
            if colours in ("YCbCr", "Gray") and height * width <= MOST_PIXELS:
                return _chw(simplejpeg.decode_jpeg(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a palette, of EXIF: nothing that a user could mend
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            return _chw(np.array(opened.convert("RGB")))


def _chw(pixels: NDArray[np.uint8]) -> Tensor:
    height, width, _ = pixels.shape
    if max(height, width) > MOST_SLENDER * min(height, width):
        raise ValueError(
            f"it has {width:,} x {height:,} px, a side over {MOST_SLENDER:,} times the other"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1)


class TrainingCrop:
    """RandomResizedCrop and horizontal flip as torchvision's transforms v2 define them.

    What is drawn depends on the seed, the epoch and the image's index only, so neither workers,
    processes nor an interruption change it.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed

    def __call__(self, image: Tensor, epoch: int, index: int) -> Tensor:
        """Return (3, size, size) of (3, H, W), uint8."""
        draws = draw(self.seed, epoch, index)
        top, left, height, width = crop_box(image.shape[1], image.shape[2], draws)
        crop = image[:, top : top + height, left : left + width]
        # As one block with the channels last it is resized in two thirds of the time.
        block = crop.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        resized: Tensor = functional.resize_image(block, [self.size, self.size], antialias=True)
        return resized.flip(-1) if draws[-1] < 0.5 else resized


def draw(seed: int, epoch: int, index: int) -> list[float]:
    """Return an image's numbers from [0, 1): two for each attempt at a crop, its place, its flip.

    torchvision's own draws, from torch's global generator, take many times as long once it is
    seeded for each image.
    """
    generator = Random(f"{seed}/{epoch}/{index}")
    return [generator.random() for _ in range(2 * ATTEMPTS + 3)]


def crop_box(height: int, width: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of RandomResizedCrop's crop, for an image and `draws`.

    The area is uniform in `SCALE`, the ratio of width to height log-uniform in `RATIO`; the first
    attempt that fits is taken, and the centre where none does.
    """
    low, high = map(math.log, RATIO)
    for area, ratio in zip(draws[: 2 * ATTEMPTS : 2], draws[1 : 2 * ATTEMPTS : 2], strict=True):
        pixels = height * width * (SCALE[0] + area * (SCALE[1] - SCALE[0]))
        aspect = math.exp(low + ratio * (high - low))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(draws[-3] * (height - h + 1))
            return top, int(draws[-2] * (width - w + 1)), h, w
    aspect = min(max(width / height, RATIO[0]), RATIO[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return (height - h) // 2, (width - w) // 2, h, w


class EvaluationCrop:
    """The shorter side to `resize`, then the centre of `size`. (3, H, W) -> (3, size, size)."""

    def __init__(self, size: int, resize: int) -> None:
        self.size = size
        self.resize = resize

    def __call__(self, image: Tensor) -> Tensor:
        """Return the crop, uint8."""
        resized = functional.resize_image(image, [self.resize], antialias=True)
        centre: Tensor = functional.center_crop_image(resized, [self.size, self.size])
        return centre
