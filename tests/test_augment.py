"""Augmentation of batches in memory is torchvision's, image by image, on the same draws."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional

from attention_ablation.datasets.reading.data import ImageData, ImageSet
from attention_ablation.feed.augment import PADDING, PadCropFlip, draws
from attention_ablation.feed.batches import MemorySource
from attention_ablation.feed.order import Part
from attention_ablation.spec.recipes import ClassificationRecipe

CPU = torch.device("cpu")


def images(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    size = (count, 3, height, width)
    return torch.randint(256, size, dtype=torch.uint8, generator=generator)


@given(seed=st.integers(0, 100), height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_batch_is_what_torchvision_makes_of_its_images(
    seed: int, height: int, width: int
) -> None:
    original = images(20, height, width)
    drawn = draws(seed, 3, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    found = PadCropFlip(original)(order, drawn)
    assert found.dtype == torch.uint8
    for one, index, (top, left, flip) in zip(found, order, drawn.tolist(), strict=True):
        padded = functional.pad(original[index], [PADDING])
        expected = functional.crop(padded, top, left, height, width)
        assert torch.equal(one, functional.horizontal_flip(expected) if flip else expected)


def test_every_place_and_both_sides_are_drawn_equally_often() -> None:
    drawn = draws(0, 1, 90_000)
    for column in (0, 1):
        counts = drawn[:, column].bincount()
        assert len(counts) == 2 * PADDING + 1
        assert (counts - 10_000).abs().max() < 500  # five standard deviations
    assert abs(drawn[:, 2].sum() - 45_000) < 750
    assert not torch.equal(drawn, draws(0, 2, 90_000))
    assert not torch.equal(drawn, draws(1, 1, 90_000))
    assert torch.equal(drawn, draws(0, 1, 90_000))


def cifar_source(rank: int = 0, size: int = 1, augmentation: str = "pad-crop-flip") -> MemorySource:
    recipe = ClassificationRecipe.model_validate(
        {
            "dataset": {"name": "cifar10"},
            "augmentation": augmentation,
            "epochs": 1,
            "batch_size": 8,
            "learning_rate": 0.1,
            "weight_decay": 0.0,
            "schedule": {"name": "step"},
        }
    )
    train = ImageSet(images(50), torch.arange(50))
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.full((3, 1, 1), 0.25)
    data = ImageData(train, train, 50, mean, std, "none")
    return MemorySource(data, Part(recipe, 5, rank, size), CPU)


def test_an_epoch_does_not_depend_on_where_it_was_resumed_or_on_the_processes() -> None:
    whole = list(cifar_source().training(2, 0))
    assert len(whole) == 6
    for first in (1, 4):
        for one, other in zip(whole[first:], cifar_source().training(2, first), strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
    halves = [list(cifar_source(rank, 2).training(2, 0)) for rank in (0, 1)]
    for (pixels, labels), *parts in zip(whole, *halves, strict=True):
        assert torch.equal(pixels, torch.cat([part[0] for part in parts]))
        assert torch.equal(labels, torch.cat([part[1] for part in parts]))
    again = list(cifar_source().training(3, 0))
    assert not torch.equal(whole[0][0], again[0][0])


def test_images_are_normalised_channel_by_channel() -> None:
    pixels, labels = next(cifar_source(augmentation="none").training(1, 0))
    mean, std = [0.4, 0.5, 0.6], [0.25] * 3
    for image, label in zip(pixels, labels, strict=True):
        scaled = functional.to_dtype(images(50)[label], torch.float32, scale=True)
        torch.testing.assert_close(image, functional.normalize(scaled, mean, std))
    assert sorted(torch.cat([of for _, of in cifar_source().validation()]).tolist()) == [*range(50)]
