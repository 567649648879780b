"""What a step and an evaluation are for the autoencoder of a front-end."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, cat, float32

from attention_ablation.datasets.reading.data import ImageData
from attention_ablation.feed.batches import Batch
from attention_ablation.networks.build import build_front_end, initialise
from attention_ablation.networks.lpae import PARTS, losses
from attention_ablation.spec.spec import Run
from attention_ablation.training.classify import ImageTask
from attention_ablation.training.machine import Machine


class FrontEnd(ImageTask):
    """An autoencoder and images. Sums are (loss, its parts, images).

    Of the parts, `reconstruction` is the mean |x - x'| over the numbers of an image, which are
    normalised.
    """

    columns = ("loss", *PARTS)

    def __init__(self, run: Run, data: ImageData, machine: Machine) -> None:
        super().__init__(run, data, machine)
        model = build_front_end()
        initialise(model, run.seed)
        self.place(model)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images, _ = batch
        found = losses(images, *self._trained(images))
        return found[0], _sums(found.detach(), len(images))

    def evaluated(self, images: Tensor, labels: Tensor) -> Tensor:
        return _sums(losses(images, *self.model(images)), len(images))

    def describe(self, row: Mapping[str, Any]) -> str:
        return (
            f"loss {row['train_loss']:.4f} train, {row['validation_loss']:.4f} validation  "
            f"reconstruction {row['validation_reconstruction']:.4f} validation"
        )


def _sums(found: Tensor, images: int) -> Tensor:
    return cat([found.float(), found.new_ones(1, dtype=float32)]) * images
