"""One image from its file: decoded, cropped and resized as torchvision's transforms v2 do it.

Everything stays uint8; the division by 255 and the normalisation are left to the batch, on the
device.
"""

import io
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import decode_jpeg
from torchvision.transforms.v2 import functional

from attention_ablation.study.errors import UserError

try:
    import simplejpeg
except ImportError:  # torchvision gives the same pixels, in a quarter more time
    simplejpeg = None

JPEG = b"\xff\xd8"
# RandomResizedCrop's, as torchvision and the reference recipes have them (Szegedy et al. 2015).
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def read_image(path: Path) -> Tensor:
    """Return a file's image, (3, H, W) uint8 RGB, whatever its name ends in.

    EXIF's orientation is not applied, as in torchvision's ImageFolder. Raises UserError, naming
    the file, where it cannot be read, is cut short, or is no image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: it cannot be read: {error.strerror}.") from None
    try:
        return decode(content)
    except (OSError, RuntimeError, SyntaxError, ValueError) as error:
        # torchvision puts the line of its own source before the reason.
        reason = re.sub(r"^.*\.cpp:\d+, ", "", str(error).strip().splitlines()[0].rstrip("."))
        if isinstance(error, UnidentifiedImageError):
            reason = "it is empty" if not content else "no image format is known to begin so"
        raise UserError(
            f"{path}: expected an image, but it does not decode: {reason}. Replace the file; "
            "`attention-ablation data check` lists all such files."
        ) from None


def decode(content: bytes) -> Tensor:
    """Return an image, (3, H, W) uint8 RGB: a JPEG by simplejpeg or torchvision, others by Pillow.

    Colours of four (CMYK, as a few of ImageNet's files have) and greys become RGB as in Pillow.
    """
    if simplejpeg is not None and content.startswith(JPEG):
        # What it does not take, or not without a warning, is left to the others; so are colours
        # of four, which it rounds otherwise.
        with suppress(ValueError):
            if simplejpeg.decode_jpeg_header(content)[2] in ("YCbCr", "Gray"):
                return torch.from_numpy(simplejpeg.decode_jpeg(content)).permute(2, 0, 1)
    if content.startswith(JPEG):
        # A bytearray, because torch warns of memory that cannot be written.
        image: Tensor = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        if len(image) == 3:
            return image
        if len(image) == 1:
            return image.expand(3, -1, -1)
    with Image.open(io.BytesIO(content)) as opened:
        pixels = np.array(opened.convert("RGB"))
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
