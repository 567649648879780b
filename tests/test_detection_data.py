"""Scenes and augmentation: what is composed, what the boxes fit, that it is the same every time."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from attention_ablation.datasets.contract import Folders, Split, load
from attention_ablation.datasets.digits import MASK_LEVEL, OVERLAP, ClutteredScenes, base_digits
from attention_ablation.datasets.reading.data import Target
from attention_ablation.datasets.reading.kept import composed_arrays
from attention_ablation.feed.detection import augmented, sample_seed


def dataset(**changes: int) -> ClutteredScenes:
    keys = {"image_size": 64, "smallest": 16, "largest": 26, "digits": 4, "fragments": 3}
    keys |= {"train_images": 30, "validation_images": 10}
    return ClutteredScenes.model_validate({"name": "cluttered-scenes"} | keys | changes)


@given(
    seed=st.integers(0, 2**32),
    split=st.sampled_from(["train", "validation"]),
    start=st.integers(0, 10_000),
    count=st.integers(2, 5),
)
@settings(max_examples=20)
def test_a_scene_depends_on_seed_split_and_index_only(
    seed: int, split: Split, start: int, count: int
) -> None:
    several = dataset(seed=seed).compose(split, range(start, start + count))
    alone = dataset(seed=seed).compose(split, range(start + 1, start + 2))
    rows = slice(several.starts[1], several.starts[2])
    np.testing.assert_array_equal(alone.images[0], several.images[1])
    np.testing.assert_array_equal(alone.boxes, several.boxes[rows])
    np.testing.assert_array_equal(alone.labels, several.labels[rows])
    assert not np.array_equal(several.images[0], several.images[1])
    other = dataset(seed=seed + 1).compose(split, range(start, start + count))
    assert not np.array_equal(several.images, other.images)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_box_is_tight_around_a_whole_digit_of_its_split(split: Split) -> None:
    data = dataset(fragments=0, digits=1)
    scenes = data.compose(split, range(60))
    assert scenes.starts.tolist() == list(range(61))
    sizes = set()
    for image, (x0, y0, x1, y1), label in zip(
        scenes.images, scenes.boxes, scenes.labels, strict=True
    ):
        ink = image >= MASK_LEVEL
        assert ink[y0:y1, x0:x1].sum() == ink.sum()
        edges = ink[y0, x0:x1], ink[y1 - 1, x0:x1], ink[y0:y1, x0], ink[y0:y1, x1 - 1]
        assert all(edge.any() for edge in edges)
        # The strokes are those of one base digit of this split, at one of the sizes.
        sides = [
            side
            for side in range(data.smallest, data.largest + 1)
            if holds(ink[y0:y1, x0:x1], label, split, side)
        ]
        assert len(sides) == 1
        sizes |= set(sides)
    assert len(sizes) > 7


def holds(cut: np.ndarray, label: int, split: Split, side: int) -> bool:
    digits, labels = base_digits(split, side)
    masks = digits[labels == label - 1] >= MASK_LEVEL
    alike = masks[masks.sum(axis=(1, 2)) == cut.sum()]
    for mask in alike:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if np.array_equal(inner, cut):
            return True
    return False


def test_digits_hardly_overlap_and_there_are_one_to_as_many_as_asked() -> None:
    data = dataset(digits=4)
    scenes = data.compose("train", range(300))
    counts = np.diff(scenes.starts)
    assert set(counts) == {1, 2, 3, 4}
    assert np.bincount(scenes.labels, minlength=11)[1:].min() > 30
    assert scenes.labels.min() == 1
    assert scenes.labels.max() == 10
    assert scenes.boxes.min() >= 0
    assert scenes.boxes.max() <= 64
    for start, stop in pairwise(scenes.starts):
        boxes = torch.from_numpy(scenes.boxes[start:stop]).float()
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        sides = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(
            boxes[:, None, :2], boxes[None, :, :2]
        )
        common = sides.clamp(min=0).prod(-1) / torch.minimum(areas[:, None], areas)
        assert (common.fill_diagonal_(0) < OVERLAP).all()
        assert (box_iou(boxes, boxes).fill_diagonal_(0) < OVERLAP).all()


def test_a_crowded_scene_leaves_digits_out_and_ends() -> None:
    crowded = dataset(image_size=32, smallest=26, largest=28, digits=20)
    counts = np.diff(crowded.compose("train", range(20)).starts)
    assert counts.min() >= 1
    assert counts.max() < 20


def test_fragments_are_clutter_only() -> None:
    clean = dataset(fragments=0).compose("train", range(50))
    cluttered = dataset(fragments=5).compose("train", range(50))
    np.testing.assert_array_equal(clean.boxes, cluttered.boxes)
    np.testing.assert_array_equal(clean.labels, cluttered.labels)
    assert (cluttered.images >= clean.images).all()
    assert ((cluttered.images > clean.images).any(axis=(1, 2))).mean() > 0.9


def test_loading_gives_what_was_composed(tmp_path: Path) -> None:
    data = dataset()
    composed_arrays(data, tmp_path)
    path = tmp_path / data.prepared
    before = path.stat().st_mtime_ns
    loaded = load(data, Folders(tmp_path, tmp_path / "nowhere"))
    assert path.stat().st_mtime_ns == before
    assert (len(loaded.train), len(loaded.validation)) == (30, 10)
    scenes = data.compose("validation", range(10))
    for i in range(10):
        image, target = loaded.validation[i]
        assert image.dtype == torch.uint8
        np.testing.assert_array_equal(image.numpy(), np.stack([scenes.images[i]] * 3))
        rows = slice(scenes.starts[i], scenes.starts[i + 1])
        np.testing.assert_array_equal(target["boxes"].numpy(), scenes.boxes[rows])
        np.testing.assert_array_equal(target["labels"].numpy(), scenes.labels[rows])
        assert not (target["difficult"] | target["crowd"]).any()
        assert (target["area"] > 0).all()
        assert int(target["image_id"]) == i
    pixels = torch.stack([loaded.train[i][0] for i in range(30)]).double() / 255
    assert loaded.mean == pytest.approx([pixels.mean().item()] * 3)
    assert loaded.std == pytest.approx([pixels.std(correction=0).item()] * 3)
    assert loaded.classes == tuple("0123456789")
    assert loaded.skipped == ""
    assert loaded.composed_with is not None
    assert f"torch {torch.__version__.split('+')[0]}" in loaded.composed_with
    again = load(data, Folders(tmp_path, tmp_path))
    assert again.fingerprint == loaded.fingerprint
    other = load(dataset(seed=1), Folders(tmp_path, tmp_path))
    assert other.fingerprint != loaded.fingerprint


def test_what_goes_to_another_process_is_one_image_not_the_whole_set(tmp_path: Path) -> None:
    data = load(dataset(), Folders(tmp_path, tmp_path))
    image, target = data.train[3]
    assert image.untyped_storage().nbytes() == 3 * 64 * 64
    assert target["boxes"].untyped_storage().nbytes() == 16 * len(target["boxes"])
    data.train[3][1]["boxes"].zero_()  # a caller's change stays with the caller
    assert data.train[3][1]["boxes"].any()
    pickle.dumps(data.train)


def scene() -> tuple[Tensor, Target]:
    """Return a coloured image of 80 x 120 px with a bright square in each of its boxes."""
    image = torch.full((3, 80, 120), 10, dtype=torch.uint8)
    boxes = torch.tensor([[5.0, 10.0, 25.0, 30.0], [60.0, 40.0, 100.0, 70.0], [110, 0, 120, 10]])
    for x0, y0, x1, y1 in boxes.int().tolist():
        image[:, y0:y1, x0:x1] = 250
    flags = torch.tensor([False, True, False])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "difficult": flags}
    target |= {"crowd": ~flags, "area": torch.tensor([400.0, 1200.0, 100.0])}
    return image, target | {"image_id": torch.tensor(7)}


def test_a_flip_mirrors_half_of_the_images_and_their_boxes() -> None:
    image, target = scene()
    flipped = 0
    for seed in range(100):
        got, boxes = augmented(image, target, "flip", seed)
        if torch.equal(got, image):
            assert torch.equal(boxes["boxes"], target["boxes"])
        else:
            flipped += 1
            assert torch.equal(got, image.flip(-1))
            expected = target["boxes"].clone()
            expected[:, [0, 2]] = 120 - target["boxes"][:, [2, 0]]
            assert torch.equal(boxes["boxes"], expected)
        assert boxes.keys() == target.keys()
        assert type(boxes["boxes"]) is type(got) is Tensor
    assert 30 < flipped < 70
    assert augmented(image, target, "none", 0)[0] is image


def test_ssd_keeps_boxes_on_their_objects() -> None:
    image, target = scene()
    sizes, counts = set(), set()
    for seed in range(60):
        got, boxes = augmented(image, target, "ssd", seed)
        sizes.add(got.shape[-2:])
        counts.add(len(boxes["labels"]))
        height, width = got.shape[-2:]
        assert got.dtype == torch.uint8
        assert all(len(boxes[k]) == len(boxes["boxes"]) for k in ("difficult", "crowd", "area"))
        assert (boxes["boxes"] >= 0).all()
        assert (boxes["boxes"] <= torch.tensor([width, height, width, height])).all()
        for (x0, y0, x1, y1), label, area in zip(
            boxes["boxes"].int().tolist(), boxes["labels"], boxes["area"], strict=True
        ):
            # What was bright is brighter than the dark around it, whatever the colours became.
            assert got[:, y0:y1, x0:x1].float().mean() > 100
            assert area == target["area"][label - 1]  # the fields go with their object
    assert len(sizes) > 25
    assert counts >= {1, 2, 3}
    assert max(h * w for h, w in sizes) > 4 * 80 * 120  # zoomed out
    assert min(h * w for h, w in sizes) < 80 * 120  # cropped


def test_the_same_seed_gives_the_same_and_leaves_torchs_generator_alone() -> None:
    image, target = scene()
    state = torch.get_rng_state()
    first, boxes = augmented(image, target, "ssd", sample_seed(0, 3, 5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    second, again = augmented(image, target, "ssd", sample_seed(0, 3, 5))
    assert torch.equal(first, second)
    assert all(torch.equal(boxes[name], again[name]) for name in boxes)
    seeds = {sample_seed(s, e, i) for s in range(5) for e in range(5) for i in range(20)}
    assert len(seeds) == 500


def test_an_image_without_objects_is_augmented_too() -> None:
    image, target = scene()
    empty = {k: v[:0] if v.dim() else v for k, v in target.items()}
    for seed in range(5):
        _, got = augmented(image, empty, "ssd", seed)
        assert got["boxes"].shape == (0, 4)
