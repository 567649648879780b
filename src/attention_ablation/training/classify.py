"""What a step and an evaluation are in image classification."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attention_ablation.datasets.reading.data import ImageData
from attention_ablation.feed.batches import Batch, source
from attention_ablation.networks.build import build, initialise
from attention_ablation.spec.recipes import ClassificationRecipe
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.training.dreal import Dreal
from attention_ablation.training.machine import Machine
from attention_ablation.training.task import Task, means


class ImageTask(Task):
    """What trainings on images with their classes share: batches, and sums over them."""

    recipe: ClassificationRecipe

    def __init__(self, run: Run, data: ImageData, machine: Machine) -> None:
        super().__init__(run, machine)
        self.source = source(data, self.part, machine.device, machine.workers)

    @property
    def steps_per_epoch(self) -> int:
        return self.source.train_images // self.recipe.batch_size

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        return self.source.training(epoch, first)

    @abstractmethod
    def evaluated(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the sums over a batch of validation images."""

    @torch.inference_mode()
    def evaluate(self, stop: Callable[[], None] = lambda: None) -> Tensor:
        """Return the sums over this process's part of the validation set; see `validate`."""
        self.model.eval()
        sums = torch.zeros(len(self.columns) + 1, device=self.device)
        source = self.source
        batches = self.processes.in_step(source.validation(), len(source.evaluated), stop)
        for images, labels in batches:
            sums += self.evaluated(images, labels)
        return sums

    def validate(self, stop: Callable[[], None]) -> dict[str, float]:
        """Return the columns' means, errors in %; see `Task`."""
        *values, images = self.processes.sum(self.evaluate(stop)).tolist()
        return means(self.columns, values, images)

    def close(self) -> None:
        self.source.close()


class Classification(ImageTask):
    """A network and its data. Sums are (loss, top-1 errors, top-5 errors, images).

    A network behind a front-end has two logits in training: its loss is the sum of their
    cross-entropies, its prediction their mean.
    """

    columns = ("loss", "top1_error", "top5_error")

    def __init__(self, run: Run, data: ImageData, machine: Machine) -> None:
        assert isinstance(run.spec, Spec)
        super().__init__(run, data, machine)
        spec, size = run.spec, self.recipe.dataset.image_size
        model = build(spec.backbone, spec.attention, data.classes, size)
        initialise(model, run.seed, zero_init_residual=self.recipe.zero_init_residual)
        if spec.initial:
            model.front_end.requires_grad_(False)
        self.place(model)
        if run.spec.attention.method == "dreal":
            self.method = Dreal(model, run.seed, self.processes)

    def start_from(self, weights: Path) -> None:
        """Take the encoder of a trained front-end, which stays as it is; see `Task`."""
        # It imports torchvision.
        from attention_ablation.networks.published import load_weights, read_state

        encoder: Any = self.model.front_end
        given = read_state(weights)
        kept = {k: value for k, value in given.items() if not k.startswith("decoder.")}
        load_weights(encoder, kept, weights)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images, labels = batch
        logits = self._trained(images)
        smoothing = self.recipe.label_smoothing
        if logits.dim() == 3:  # of a network behind a front-end
            low, both = (cross_entropy(each, labels, label_smoothing=smoothing) for each in logits)
            logits, loss = logits.mean(dim=0), low + both
        else:
            loss = cross_entropy(logits, labels, label_smoothing=smoothing)
        sums = _sums(logits.detach(), labels, loss.detach())
        if self.method:
            loss = loss + self.method.term(images, labels, logits.detach())
        return loss, sums

    def evaluated(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.model(images)
        return _sums(logits, labels, cross_entropy(logits, labels))

    def describe(self, row: Mapping[str, Any]) -> str:
        return (
            f"loss {row['train_loss']:.4f} train, {row['validation_loss']:.4f} validation  "
            f"top-1 error {row['train_top1_error']:.2f} % train, "
            f"{row['validation_top1_error']:.2f} % validation"
        )


def _sums(logits: Tensor, labels: Tensor, loss: Tensor) -> Tensor:
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hit = best == labels[:, None]  # (N, 5)
    images = len(labels)
    top1, top5 = images - hit[:, 0].sum(), images - hit.sum()
    return torch.stack([loss.float() * images, top1, top5, torch.full_like(top1, images)])
