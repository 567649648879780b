"""An image's file becomes what torchvision's reference makes of it, and a bad file is named."""

import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.reading import decode as images
from attention_ablation.datasets.reading.decode import decode, read_image
from attention_ablation.feed.augment import ATTEMPTS, crop_box, draw, evaluation_crop, training_crop
from tests.photos import encoded, photo, pixels

ROTATED = Image.Exif()
ROTATED[0x0112] = 6
FILES = {
    "jpeg": encoded(photo(1)),
    "progressive": encoded(photo(1), progressive=True),
    "grey jpeg": encoded(photo(1).convert("L")),
    "cmyk jpeg": encoded(photo(1).convert("CMYK")),
    "rotated by exif": encoded(photo(1), exif=ROTATED),
    "png": encoded(photo(1), "PNG"),
    "png with a palette": encoded(photo(1).convert("P"), "PNG"),
    "grey png of 16 bits": encoded(Image.fromarray(np.full((9, 9), 40000, np.uint16)), "PNG"),
    "transparent png": encoded(photo(1).convert("RGBA"), "PNG"),
    "png whose palette is transparent": encoded(photo(1).convert("P"), "PNG", transparency=b"\0a"),
    "webp": encoded(photo(1), "WEBP"),
    "animated webp": encoded(photo(1), "WEBP", save_all=True, append_images=[photo(2)]),
    "bmp": encoded(photo(1), "BMP"),
    "ppm": encoded(photo(1), "PPM"),
    "pgm of 16 bits": encoded(Image.fromarray(np.full((9, 9), 40000, np.uint16)), "PPM"),
    "tiff": encoded(photo(1), "TIFF"),
    "tiff of two pages": encoded(photo(1), "TIFF", save_all=True, append_images=[photo(2)]),
    "jpeg of two pictures": encoded(photo(1), "MPO", save_all=True, append_images=[photo(2)]),
}  # fmt: skip


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file that ends where its pixels would begin."""
    header = b"IHDR" + struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    end = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + end + FILES["png"][33:]


def jpeg_of(width: int, height: int) -> bytes:
    """Return a small JPEG file that says it is of another size."""
    size, false = struct.pack(">HH", 60, 80), struct.pack(">HH", height, width)
    assert FILES["jpeg"].count(size) == 1
    return FILES["jpeg"].replace(size, false)


@pytest.mark.parametrize("decoder", ["simplejpeg", "pillow"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_is_decoded_as_by_pillow(
    name: str, decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "pillow":
        monkeypatch.setattr(images, "simplejpeg", None)
    path = tmp_path / "image.JPEG"  # ImageNet has PNG files of such names
    path.write_bytes(FILES[name])
    found = read_image(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's of a transparent palette; ours are errors
        expected = pixels(FILES[name])
    assert found.dtype == torch.uint8
    assert found.shape == (3, *expected.shape[:2])
    difference = np.abs(found.permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= 2  # decoders may round differently
    assert difference.mean() < 0.1


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_both_decoders_of_jpeg_give_the_same_pixels(
    subsampling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("simplejpeg")
    content = encoded(photo(1, 61, 83), subsampling=subsampling)
    fast = decode(content)
    monkeypatch.setattr(images, "simplejpeg", None)
    assert torch.equal(fast, decode(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (FILES["jpeg"][: len(FILES["jpeg"]) // 2], "does not decode"),
        (FILES["png"][: len(FILES["png"]) // 2], "does not decode"),
        (FILES["cmyk jpeg"][:300], "does not decode"),
        (b"", "it is empty"),
        (b"<html>404 not found</html>", "it is none of JPEG, PNG, PPM, BMP, TIFF, WEBP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is none of JPEG"),
        (encoded(photo(1), "GIF"), "it is none of JPEG"),
        (png_header(20_000, 10_000), "200000000 pixels"),
        (jpeg_of(36_000, 36_000), "1296000000 pixels"),
        (b"P6 99999 99999 255\n", "9999800001 pixels"),
        (encoded(photo(1, 2, 2_100), "PNG"), "it has 2,100 x 2 px"),
        (FILES["tiff"][:8] + b"\xff" * 60, "does not decode"),
        (FILES["bmp"][:14] + b"\xff" * 60, "does not decode"),
        (FILES["webp"][:40], "does not decode"),
    ],
)
def test_a_file_that_does_not_decode_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "n01440764_18.JPEG"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"n01440764_18\.JPEG: expected an image.*{reason}"):
        read_image(path)
    with pytest.raises(UserError, match="it cannot be read: No such file"):
        read_image(tmp_path / "gone.JPEG")


def test_the_limit_of_pixels_is_pillows() -> None:
    assert 2 * Image.MAX_IMAGE_PIXELS == images.MOST_PIXELS


def test_decoding_warns_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000)  # it warns of more, refuses 6,000
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(FILES["png"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(FILES["png"]).shape == (3, 60, 80)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match=r"image\.jpg: (expected a regular file|it cannot be read)"):
        read_image(path)
    path.rename(tmp_path / "other")
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte of nothing
    with pytest.raises(UserError, match=r"image\.jpg: expected at most 1,431,655,760 bytes, got"):
        read_image(path)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Make torchvision draw what it is given: two numbers for each attempt, then the place."""

    def replay(numbers: list[float]) -> None:
        attempts: Iterator[float] = iter(numbers[: 2 * ATTEMPTS])
        places = iter(numbers[-3:-1])

        def uniform(self: torch.Tensor, low: float = 0, high: float = 1) -> torch.Tensor:
            return self.fill_(float(low) + next(attempts) * (float(high) - float(low)))

        def randint(low: int, high: int, size: tuple[int]) -> torch.Tensor:
            return torch.tensor([low + int(next(places) * (high - low))])

        monkeypatch.setattr(torch.Tensor, "uniform_", uniform)
        monkeypatch.setattr(torch, "randint", randint)

    return replay


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (40, 400), (300, 20)])
def test_crops_are_torchvisions_on_the_same_draws(
    height: int, width: int, replayed: Callable[[list[float]], None]
) -> None:
    reference = v2.RandomResizedCrop(224)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    equal = 0
    for index in range(300):
        numbers = draw(7, 2, index)
        replayed(numbers)
        expected = reference.make_params([image])
        box = tuple(expected[key] for key in ("top", "left", "height", "width"))
        found = crop_box(height, width, numbers)
        # torchvision rounds its draws to single precision, which may move a side by a pixel.
        assert all(abs(a - b) <= 1 for a, b in zip(found, box, strict=True))
        equal += found == box
    assert equal > 295


@given(height=st.integers(1, 600), width=st.integers(1, 600), index=st.integers(0, 10**7))
def test_a_crop_lies_in_its_image(height: int, width: int, index: int) -> None:
    top, left, h, w = crop_box(height, width, draw(0, 1, index))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h >= 1
    assert w >= 1


def test_crops_are_distributed_as_the_reference_says() -> None:
    boxes = np.array([crop_box(4000, 4000, draw(3, 1, i)) for i in range(4000)])
    top, left, height, width = boxes.T.astype(float)
    area, ratio = height * width / 4000**2, np.log(width / height)
    # Below 0.75 every attempt fits: uniform in the area, and in log(3/4) to log(4/3).
    small = area < 0.75
    assert area[small].mean() == pytest.approx((0.08 + 0.75) / 2, abs=0.015)
    assert area[small].std() == pytest.approx((0.75 - 0.08) / math.sqrt(12), rel=0.05)
    assert area.min() > 0.079
    assert ratio[small].mean() == pytest.approx(0, abs=0.02)
    assert ratio[small].std() == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), rel=0.05)
    assert (top / (4000 - height + 1)).mean() == pytest.approx(0.5, abs=0.02)
    assert (left / (4000 - width + 1)).mean() == pytest.approx(0.5, abs=0.02)


def test_training_crops_are_near_those_of_pillow(tmp_path: Path) -> None:
    content = encoded(photo(2, 375, 500))
    image = decode(content)
    original = Image.fromarray(pixels(content).astype(np.uint8))
    flipped = 0
    for index in range(20):
        found = training_crop(image, 224, 4, 1, index)
        numbers = draw(4, 1, index)
        top, left, height, width = crop_box(375, 500, numbers)
        box = original.crop((left, top, left + width, top + height))
        expected = np.asarray(box.resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
        if numbers[-1] < 0.5:
            flipped += 1
            expected = expected[:, ::-1]
        difference = np.abs(found.permute(1, 2, 0).numpy() - expected)
        assert difference.mean() < 0.5
        assert difference.max() <= 4
    assert 0 < flipped < 20
    crops = [training_crop(image, 224, *which) for which in ((4, 1, 3), (4, 2, 3), (5, 1, 3))]
    assert torch.equal(training_crop(image, 224, 4, 1, 3), crops[0])
    assert not torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (100, 300), (256, 256)])
def test_evaluation_is_torchvisions_preset(height: int, width: int) -> None:
    content = encoded(photo(3, height, width))
    found = evaluation_crop(decode(content), 224, 256)
    preset = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])
    assert torch.equal(found, preset(decode(content)))
    opened = preset(Image.fromarray(pixels(content).astype(np.uint8)))
    difference = np.abs(found.permute(1, 2, 0).numpy() - np.asarray(opened).astype(int))
    assert difference.mean() < 0.5


def test_the_draws_of_an_image_are_its_own() -> None:
    numbers = {tuple(draw(s, e, i)) for s in range(3) for e in range(3) for i in range(30)}
    assert len(numbers) == 270
    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len(draw(0, 0, 0)) == 2 * ATTEMPTS + 3
