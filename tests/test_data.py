"""Cluttered digits: what is composed, from what, and that it is the same every time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from attention_ablation.datasets.contract import Folders, Split, load
from attention_ablation.datasets.digits import MASK_LEVEL, ClutteredDigits, base_digits


def dataset(**changes: int) -> ClutteredDigits:
    keys = {"image_size": 32, "digit_size": 24, "fragments": 2, "train_images": 40}
    return ClutteredDigits.model_validate(
        {"name": "cluttered-digits", "validation_images": 20} | keys | changes
    )


def test_base_digits_are_split_before_anything_is_composed() -> None:
    pixels, labels = load_digits(return_X_y=True)
    (train, train_labels), (validation, validation_labels) = (
        base_digits(split, 8) for split in ("train", "validation")
    )
    both = np.concatenate([train, validation]).reshape(-1, 64)
    assert sorted(map(bytes, both)) == sorted(map(bytes, np.round(pixels * 255 / 16).astype("u1")))
    assert len(validation) == 500
    together = np.concatenate([train_labels, validation_labels])
    assert np.bincount(together).tolist() == np.bincount(labels).tolist()
    assert np.bincount(validation_labels).min() >= 45  # every class, evenly


@given(
    seed=st.integers(0, 2**32),
    split=st.sampled_from(["train", "validation"]),
    start=st.integers(0, 10_000),
    count=st.integers(2, 8),
)
@settings(max_examples=30, deadline=None)
def test_an_image_depends_on_seed_split_and_index_only(
    seed: int, split: Split, start: int, count: int
) -> None:
    data = dataset(seed=seed)
    several = data.compose(split, range(start, start + count))
    alone = data.compose(split, range(start + 1, start + 2))
    for name, value in vars(alone).items():
        np.testing.assert_array_equal(value[0], vars(several)[name][1])
    assert not np.array_equal(several.images[0], several.images[1])
    other = dataset(seed=seed + 1).compose(split, range(start, start + count))
    assert not np.array_equal(several.images, other.images)


def masks(images: np.ndarray) -> np.ndarray:
    """The targets' ink, where there are no fragments."""
    return images >= MASK_LEVEL


def test_the_target_is_whole_and_its_box_fits() -> None:
    digits, _ = base_digits("train", 24)
    images = dataset(image_size=40).compose("train", range(200))
    clean = dataset(image_size=40, fragments=0).compose("train", range(200))
    known = {bytes(digit >= MASK_LEVEL) for digit in digits}
    for image, box, mask in zip(images.images, images.boxes, masks(clean.images), strict=True):
        x0, y0, x1, y1 = box
        inside = mask[y0:y1, x0:x1]
        assert inside.sum() == mask.sum()  # nothing outside the box
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        assert (image[mask] >= MASK_LEVEL).all()
        # The mask is one whole base digit, found at one of its possible places.
        windows = np.lib.stride_tricks.sliding_window_view(mask, (24, 24)).reshape(-1, 24, 24)
        assert any(bytes(w) in known for w in windows if w.sum() == mask.sum())


def test_without_fragments_nothing_but_the_target_is_there() -> None:
    clean = dataset(fragments=0).compose("train", range(50))
    cluttered = dataset(fragments=6).compose("train", range(50))
    np.testing.assert_array_equal(clean.boxes, cluttered.boxes)
    for image, (x0, y0, x1, y1) in zip(masks(clean.images), clean.boxes, strict=True):
        assert image.sum() == image[y0:y1, x0:x1].sum()  # nothing outside the box
    assert (masks(cluttered.images) & ~masks(clean.images)).any()
    np.testing.assert_array_equal(clean.labels, cluttered.labels)  # same targets, more clutter


def test_loading_gives_what_was_composed(tmp_path: Path) -> None:
    data = dataset()
    loaded = load(data, Folders(tmp_path, tmp_path))
    np.testing.assert_array_equal(
        loaded.train.images.squeeze(1).numpy(), data.compose("train", range(40)).images
    )
    assert loaded.validation.images.shape == (20, 1, 32, 32)
    assert loaded.classes == 10
    pixels = loaded.train.images.double() / 255
    assert loaded.mean == pytest.approx(pixels.mean().item())
    assert loaded.std == pytest.approx(pixels.std(correction=0).item())
    path = tmp_path / data.prepared
    before = path.stat().st_mtime_ns
    assert load(data, Folders(tmp_path, tmp_path)).fingerprint == loaded.fingerprint
    assert path.stat().st_mtime_ns == before  # composed once
    # Two training images cannot show all ten classes.
    assert load(dataset(train_images=2), Folders(tmp_path, tmp_path)).classes == 10
    assert load(dataset(seed=1), Folders(tmp_path, tmp_path)).fingerprint != loaded.fingerprint
