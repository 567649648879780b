"""What a step and an evaluation are in image classification."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attention_ablation.data.load import ImageData, ImageSet, load, network_input
from attention_ablation.models.build import build, initialise
from attention_ablation.study.spec import Run, Spec
from attention_ablation.training.processes import ALONE, Processes
from attention_ablation.training.task import means

EVALUATION_BATCH = 250
Batch = tuple[Tensor, Tensor]


class Classification:
    """A network and its data, in memory on the device, so that no batch waits for Python.

    Sums over images are kept on the device as (loss, top-1 errors, top-5 errors, images); reading
    them is left to the caller, because it waits for the device. With several processes each takes
    its part of every batch and of the validation set, and adding their sums is left to the caller.

    Raises UserError where the batch cannot be divided by the processes.
    """

    columns = ("loss", "top1_error", "top5_error")

    def __init__(
        self, run: Run, data: ImageData, device: torch.device, processes: Processes = ALONE
    ) -> None:
        assert isinstance(run.spec, Spec)
        self.recipe = run.spec.recipe
        self.seed = run.seed
        self.device = device
        self.processes = processes
        self.share = processes.share(self.recipe.batch_size)
        self.fingerprint = data.fingerprint
        self.composed_with = data.composed_with
        self.train_set, self.validation_set = data.train.to(device), data.validation.to(device)
        self.mean, self.std = data.mean, data.std
        self.model = build(run.spec.backbone, run.spec.attention, data.classes)
        initialise(self.model, run.seed, zero_init_residual=self.recipe.zero_init_residual)
        # Tensors stay (N, C, H, W) and lie in memory as N, H, W, C, which convolutions prefer.
        self.model.to(device).to(memory_format=torch.channels_last)
        self._trained = processes.wrap(self.model)

    @staticmethod
    def load(run: Run, folder: Path, data_folder: Path) -> ImageData:
        """Return the run's data set, composed first where that was not done."""
        assert isinstance(run.spec, Spec)
        return load(run.spec.recipe.dataset, data_folder)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch; a last batch that is not full is left out."""
        return len(self.train_set.labels) // self.recipe.batch_size

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield this process's parts of the epoch's batches, from the `first`, counted from 0.

        Their order depends on the seed and the epoch only.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.train_set.labels), generator=generator).to(self.device)
        for step in range(first, self.steps_per_epoch):
            begin = step * self.recipe.batch_size + self.processes.rank * self.share
            yield self._batch(self.train_set, order[begin : begin + self.share])

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss to minimise and the batch's sums."""
        images, labels = batch
        logits = self._trained(images)
        loss = cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        return loss, _sums(logits.detach(), labels, loss.detach())

    @torch.inference_mode()
    def evaluate(self) -> Tensor:
        """Return the sums over this process's part of the validation set.

        Every image is in one process's part, also where the parts are not of one size.
        """
        self.model.eval()
        sums = torch.zeros(4, device=self.device)
        everything = torch.arange(len(self.validation_set.labels), device=self.device)
        part = everything[self.processes.rank :: self.processes.size]
        for begin in range(0, len(part), EVALUATION_BATCH):
            indices = part[begin : begin + EVALUATION_BATCH]
            images, labels = self._batch(self.validation_set, indices)
            logits = self.model(images)
            sums += _sums(logits, labels, cross_entropy(logits, labels))
        return sums

    def validate(self) -> dict[str, float]:
        """Return loss and errors (%) of the whole validation set."""
        *values, images = self.processes.sum(self.evaluate()).tolist()
        return means(self.columns, values, images)

    def describe(self, row: Mapping[str, Any]) -> str:
        """Return a row of the history as text."""
        return (
            f"loss {row['train_loss']:.4f} train, {row['validation_loss']:.4f} validation  "
            f"top-1 error {row['train_top1_error']:.2f} % train, "
            f"{row['validation_top1_error']:.2f} % validation"
        )

    def conclude(self, folder: Path) -> None:
        """Write nothing: where a network looks is a job of its own."""

    def _batch(self, images: ImageSet, indices: Tensor) -> Batch:
        pixels = network_input(images.images[indices], self.mean, self.std)
        return pixels, images.labels[indices]


def _sums(logits: Tensor, labels: Tensor, loss: Tensor) -> Tensor:
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hit = best == labels[:, None]  # (N, 5)
    images = len(labels)
    top1, top5 = images - hit[:, 0].sum(), images - hit.sum()
    return torch.stack([loss.float() * images, top1, top5, torch.full_like(top1, images)])
