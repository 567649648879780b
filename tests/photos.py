"""Images for tests, in the formats in which they lie on disks."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ["n01440764", "n02102040", "n02979186"]  # three of ImageNet's


def photo(seed: int, height: int = 60, width: int = 80) -> Image.Image:
    """A smooth colour image, so that JPEG changes it little."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 90} if form == "JPEG" else {}) | options)
    return buffer.getvalue()


def pixels(content: bytes) -> NDArray[np.int64]:
    """What Pillow decodes, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(np.int64)


def folder(root: Path, classes: list[str], train: int, validation: int) -> Path:
    """A data set of JPEG files in `train` and `val`, the given number in each class."""
    seed = 0
    for split, count in (("train", train), ("val", validation)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                seed += 1
                content = encoded(photo(seed, 40 + seed % 7, 50 + seed % 5))
                (root / split / name / f"{name}_{i}.JPEG").write_bytes(content)
    return root
