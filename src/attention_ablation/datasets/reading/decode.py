"""One image from its file."""

import io
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes

try:
    import simplejpeg
except ImportError:  # Pillow gives the same pixels, in twice the time
    simplejpeg = None

JPEG = b"\xff\xd8"
# Pillow's names of the formats of image_folders.ENDINGS. Others run programs, such as Ghostscript.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
# Pillow's limit, above which it refuses an image: as RGB 537 MB.
MOST_PIXELS = 178_956_970
# Of the longer side over the shorter, which an evaluation enlarges to hundreds of px.
MOST_SLENDER = 1_000


def read_image(path: Path, size: tuple[int, int] | None = None) -> Tensor:
    """Return a file's image, (3, H, W) uint8 RGB, whatever its name ends in.

    EXIF's orientation is not applied, as in torchvision's ImageFolder. size: width and height in
    px that its annotation gives. Raises UserError, naming the file, where it does not decode or is
    of another size.
    """
    content = read_bytes(path, most=8 * MOST_PIXELS)  # four colours of 16 bits
    try:
        image = decode(content)
    except Exception as error:  # decoders raise what they stumble over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, UnidentifiedImageError):
            formats = ", ".join(FORMATS)
            reason = f"it is none of {formats}" if content else "it is empty"
        raise UserError(
            f"{path}: expected an image, but it does not decode: {reason}. Replace the file; "
            "`attention-ablation data check` lists all such files."
        ) from None
    height, width = image.shape[1:]
    if size and size != (width, height):
        raise UserError(
            f"{path}: expected {size[0]} x {size[1]} px, as its annotation says, got {width} x "
            f"{height}: its boxes are for another image. Fetch both again."
        )
    return image


def decode(content: bytes) -> Tensor:
    """Return an image, (3, H, W) uint8 RGB: a JPEG by simplejpeg, others by Pillow.

    Their pixels are equal: colours of four (CMYK), greys and palettes become RGB as in Pillow. Of
    several images the first is taken. Raises ValueError for an image that is too slender, and
    whatever Pillow raises.
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
