"""What a step and an evaluation are in object detection."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_ablation.base.io import write_arrays
from attention_ablation.datasets.reading.data import DetectionData, Target
from attention_ablation.detectors.build import build_detector, initialise_detector
from attention_ablation.detectors.ssd import SingleShot
from attention_ablation.feed.detection import Batch, DetectionSource, sample_seed
from attention_ablation.networks.published import read_state
from attention_ablation.runs.folder import DETECTIONS
from attention_ablation.spec.recipes import DetectionRecipe
from attention_ablation.spec.spec import DetectionSpec, Run
from attention_ablation.training.detection_metrics import coco_map, voc_map
from attention_ablation.training.machine import Machine
from attention_ablation.training.task import Task

EVALUATION_BATCH = 16
# The parts of the loss, by torchvision's names.
SINGLE_SHOT_LOSSES = ("classification", "bbox_regression")
LOSSES = {
    "faster-rcnn": ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"),
    "ssd": SINGLE_SHOT_LOSSES,
    "stairnet": SINGLE_SHOT_LOSSES,
}
SHOWN = 6  # validation images whose detections are kept for the figure


class Detection(Task):
    """A detector and its data. Sums are (loss, its parts, images).

    Images have their own sizes, so a batch is a list of them.
    """

    recipe: DetectionRecipe

    def __init__(self, run: Run, data: DetectionData, machine: Machine) -> None:
        spec = run.spec
        assert isinstance(spec, DetectionSpec)
        super().__init__(run, machine)
        self.data = data
        self.source = DetectionSource(data, self.part, machine.device, machine.workers)
        model = build_detector(
            spec.detector,
            spec.backbone,
            spec.attention,
            len(data.classes),
            image_size=self.recipe.dataset.image_size,
            longest=self.recipe.dataset.longest_side,
            mean=data.mean,
            std=data.std,
        )
        if isinstance(model, SingleShot):
            model.mean_matches = self.processes.mean
        initialise_detector(model, run.seed)
        self._parts = LOSSES[spec.detector.name]
        self.columns = ("loss", *(f"loss_{name.removeprefix('loss_')}" for name in self._parts))
        self.place(model)

    def start_from(self, weights: Path) -> None:
        self.model.load_backbone(read_state(weights))  # type: ignore[operator]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.part.steps(len(self.data.train), 1))

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield batches; see `Task`.

        What a step samples, such as regions, depends on the seed, the step and the process, so a
        training that goes on in the middle of an epoch samples the same.
        """
        steps = self.part.steps(len(self.data.train), epoch, first)
        for step, batch in zip(steps, self.source.training(steps), strict=True):
            torch.manual_seed(sample_seed(self.part.seed, step, self.part.rank))
            yield batch

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images, targets = batch
        parts = self._trained(images, targets)
        values = [parts[name] for name in self._parts]
        loss = torch.stack(values).sum()
        sums = torch.stack([loss, *values]).detach() * len(images)
        return loss, torch.cat([sums, sums.new_full((1,), len(images))])

    @torch.inference_mode()
    def detect(
        self, indices: range, stop: Callable[[], None] | None = None
    ) -> list[tuple[Target, Target]]:
        """Return what the detector finds in validation images, and what is there, on the CPU.

        With `stop` all processes do so together, and it is called before each batch.
        """
        self.model.eval()
        begins = range(0, len(indices), EVALUATION_BATCH)
        parts = [indices[begin : begin + EVALUATION_BATCH] for begin in begins]
        batches = self.source.validation(parts)
        if stop:
            batches = self.processes.in_step(batches, len(parts), stop)
        found = []
        for images, targets in batches:
            for prediction, target in zip(self.model(images), targets, strict=True):
                # Copies: a view keeps the whole batch, and the file that a worker sent it in.
                there = {k: v.clone() for k, v in target.items()}
                found.append(({k: v.cpu() for k, v in prediction.items()}, there))
        return found

    def validate(self, stop: Callable[[], None]) -> dict[str, float]:
        """Return the mAP (%) by the recipe's metric; see `Task`."""
        part = range(self.processes.rank, len(self.data.validation), self.processes.size)
        found = self.processes.gather(self.detect(part, stop))
        predictions, targets = [p for p, _ in found], [t for _, t in found]
        if self.recipe.metric == "coco":
            shares = coco_map(predictions, targets)
        else:
            by_class = voc_map(predictions, targets, self.data.classes)
            shares = {"map_50": float(np.mean(list(by_class.values())))}
        return {name: round(100 * share, 4) for name, share in shares.items()}

    def describe(self, row: Mapping[str, Any]) -> str:
        text = f"loss {row['train_loss']:.4f} train"
        if "validation_map_50" in row:
            text += f"  mAP@.5 {row['validation_map_50']:.1f} % validation"
        return text

    def conclude(self, folder: Path) -> dict[str, str]:
        """Keep the first validation images with true and found boxes, for a person to look at."""
        if not self.processes.is_main:
            return {}
        shown = range(min(SHOWN, len(self.data.validation)))
        arrays: dict[str, Any] = {"classes": np.array(self.data.classes)}
        with closing(self):
            found = self.detect(shown)
        for i, (prediction, target) in enumerate(found):
            arrays[f"image_{i}"] = self.data.validation[i][0].numpy()
            arrays |= {f"found_{k}_{i}": v.numpy() for k, v in prediction.items()}
            arrays |= {f"true_{k}_{i}": target[k].numpy() for k in ("boxes", "labels")}
        return {"detections_sha256": write_arrays(folder / DETECTIONS, arrays)}

    def close(self) -> None:
        self.source.close()
