"""Which images a step trains on and an evaluation reads: one order for both tasks."""

from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

from attention_ablation.spec.recipes import Recipe

# The pass through the training images, from 1, or None for the validation set; and the image.
Key = tuple[int | None, int]
C = TypeVar("C", bound=Recipe)


class Part(Generic[C]):
    """Which images this process takes: number `rank` of `size`, of a recipe and a seed.

    Steps are counted from 0 over the whole training, passes through the images from 1. A pass's
    last batch is left out where it is not full.
    """

    def __init__(self, recipe: C, seed: int, rank: int = 0, size: int = 1) -> None:
        self.recipe = recipe
        self.seed = seed
        self.rank = rank
        self.size = size
        self._last: tuple[tuple[int, int], Tensor] | None = None

    def order(self, images: int, number: int) -> Tensor:
        """Return the indices of a pass's images in their order, of all processes, on the CPU."""
        if self._last is None or self._last[0] != (images, number):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            self._last = (images, number), torch.randperm(images, generator=generator)
        return self._last[1]

    def steps(self, images: int, epoch: int, first: int = 0) -> range:
        """Return an epoch's steps, from its `first`; an epoch may go on within a pass."""
        each = getattr(self.recipe, "steps_per_epoch", None) or images // self.recipe.batch_size
        return range((epoch - 1) * each + first, epoch * each)

    def at(self, images: int, step: int) -> tuple[int, slice]:
        """Return a step's pass, and this process's part of the batch as a slice of its order."""
        batch = self.recipe.batch_size
        done, place = divmod(step, images // batch)
        share = batch // self.size
        begin = place * batch + self.rank * share
        return done + 1, slice(begin, begin + share)

    def keys(self, images: int, steps: range) -> Iterator[list[Key]]:
        """Yield the keys of this process's images, step by step."""
        for step in steps:
            number, mine = self.at(images, step)
            yield [(number, index) for index in self.order(images, number)[mine].tolist()]

    def evaluated(self, images: int, batch: int) -> tuple[Tensor, ...]:
        """Return the indices of this process's validation images, batch by batch."""
        return tuple(torch.arange(images)[self.rank :: self.size].split(batch))
