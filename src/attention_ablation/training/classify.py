"""What a step and an evaluation are in image classification."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attention_ablation.datasets.contract import Folders, load
from attention_ablation.datasets.reading.data import ImageData
from attention_ablation.feed.batches import Batch, source
from attention_ablation.feed.order import Part
from attention_ablation.networks.build import build, initialise
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.training.machine import Machine
from attention_ablation.training.task import means


class Classification:
    """A network and its data: a `Task`. Sums are (loss, top-1 errors, top-5 errors, images)."""

    columns = ("loss", "top1_error", "top5_error")

    def __init__(self, run: Run, data: ImageData, machine: Machine) -> None:
        assert isinstance(run.spec, Spec)
        self.recipe = run.spec.recipe
        self.seed = run.seed
        self.device = machine.device
        self.processes = processes = machine.processes
        # Raises where they cannot share it.
        processes.share(self.recipe.batch_size, run.spec.least_batch)
        part = Part(self.recipe, self.seed, processes.rank, processes.size)
        self.source = source(data, part, machine.device, machine.workers)
        self.fingerprint = data.fingerprint
        self.remarks = ""  # what is not as it should be is refused
        self.composed_with = data.composed_with
        self.model = build(run.spec.backbone, run.spec.attention, data.classes)
        initialise(self.model, run.seed, zero_init_residual=self.recipe.zero_init_residual)
        # Tensors stay (N, C, H, W) and lie in memory as N, H, W, C, which convolutions prefer.
        self.model.to(machine.device).to(memory_format=torch.channels_last)
        self._trained = processes.wrap(self.model)

    @staticmethod
    def load(run: Run, folder: Path, folders: Folders) -> ImageData:
        """Return the run's data set; see `Task`."""
        data: ImageData = load(run.spec.recipe.dataset, folders)
        return data

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch; a last batch that is not full is left out."""
        return self.source.train_images // self.recipe.batch_size

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches, whose order depends on the seed and the epoch only."""
        return self.source.training(epoch, first)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss to minimise and the batch's sums."""
        images, labels = batch
        logits = self._trained(images)
        loss = cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        return loss, _sums(logits.detach(), labels, loss.detach())

    @torch.inference_mode()
    def evaluate(self, stop: Callable[[], None] = lambda: None) -> Tensor:
        """Return the sums over this process's part of the validation set; see `validate`."""
        self.model.eval()
        sums = torch.zeros(4, device=self.device)
        source = self.source
        batches = self.processes.in_step(source.validation(), len(source.evaluated), stop)
        for images, labels in batches:
            logits = self.model(images)
            sums += _sums(logits, labels, cross_entropy(logits, labels))
        return sums

    def validate(self, stop: Callable[[], None]) -> dict[str, float]:
        """Return loss and errors (%) of the whole validation set; see `Task`."""
        *values, images = self.processes.sum(self.evaluate(stop)).tolist()
        return means(self.columns, values, images)

    def describe(self, row: Mapping[str, Any]) -> str:
        """Return a row of the history as text."""
        return (
            f"loss {row['train_loss']:.4f} train, {row['validation_loss']:.4f} validation  "
            f"top-1 error {row['train_top1_error']:.2f} % train, "
            f"{row['validation_top1_error']:.2f} % validation"
        )

    def conclude(self, folder: Path) -> dict[str, str]:
        """Write nothing: where a network looks is a job of its own."""
        return {}

    def close(self) -> None:
        """End the worker processes, if there are any."""
        self.source.close()


def _sums(logits: Tensor, labels: Tensor, loss: Tensor) -> Tensor:
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hit = best == labels[:, None]  # (N, 5)
    images = len(labels)
    top1, top5 = images - hit[:, 0].sum(), images - hit.sum()
    return torch.stack([loss.float() * images, top1, top5, torch.full_like(top1, images)])
