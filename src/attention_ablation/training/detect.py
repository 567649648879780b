"""What a step and an evaluation are in object detection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_ablation.base.arrays import write_arrays
from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.datasets.reading.data import DetectionData, Target
from attention_ablation.detectors.build import build_detector, initialise_detector
from attention_ablation.detectors.ssd import SingleShot
from attention_ablation.feed.detection import Batch, DetectionSource, sample_seed, to_device
from attention_ablation.feed.order import Part
from attention_ablation.networks.published import read_state
from attention_ablation.runs.folder import DETECTIONS, initial_weights, sha256
from attention_ablation.spec.spec import DetectionSpec, Run
from attention_ablation.training.coco_map import coco_map
from attention_ablation.training.machine import Machine
from attention_ablation.training.voc_map import voc_map

EVALUATION_BATCH = 16
# The parts of the loss, by torchvision's names.
SINGLE_SHOT_LOSSES = ("classification", "bbox_regression")
LOSSES = {
    "faster-rcnn": ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"),
    "ssd": SINGLE_SHOT_LOSSES,
    "stairnet": SINGLE_SHOT_LOSSES,
}
SHOWN = 6  # validation images whose detections are kept for the figure
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Material:
    """What a detection run needs: its data set, and the weights that its backbone starts from."""

    data: DetectionData
    initial: Weights | None


class Detection:
    """A detector and its data: a `Task`. Sums are (loss, its parts, images).

    Images have their own sizes, so a batch is a list of them.
    """

    def __init__(self, run: Run, material: Material, machine: Machine) -> None:
        spec = run.spec
        assert isinstance(spec, DetectionSpec)
        self.recipe = spec.recipe
        self.seed = run.seed
        self.device = machine.device
        self.processes = processes = machine.processes
        # Raises where they cannot share it.
        processes.share(self.recipe.batch_size, spec.least_batch)
        self.data = data = material.data
        self.part = Part(self.recipe, self.seed, processes.rank, processes.size)
        self.source = DetectionSource(data, self.part, machine.device, machine.workers)
        self.fingerprint, self.composed_with = data.fingerprint, data.composed_with
        self.remarks = data.skipped
        self.model = build_detector(
            spec.detector,
            spec.backbone,
            spec.attention,
            len(data.classes),
            image_size=self.recipe.dataset.image_size,
            longest=self.recipe.dataset.longest_side,
            mean=data.mean,
            std=data.std,
        )
        if isinstance(self.model, SingleShot):
            self.model.mean_matches = processes.mean
        initialise_detector(self.model, run.seed)
        if material.initial is not None:
            self.model.load_backbone(material.initial)  # type: ignore[operator]
        self._parts = LOSSES[spec.detector.name]
        self.columns = ("loss", *(f"loss_{name.removeprefix('loss_')}" for name in self._parts))
        self.model.to(machine.device).to(memory_format=torch.channels_last)
        self._trained = processes.wrap(self.model)

    @staticmethod
    def load(run: Run, folder: Path, folders: Folders) -> Material:
        """Return the run's data, and the weights to start from, of a run beside its `folder`."""
        assert isinstance(run.spec, DetectionSpec)
        data = load(run.spec.recipe.dataset, folders)
        if data.skipped:
            print(f"warning: {data.skipped}", flush=True)
        return Material(data, _initial(run, folder))

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch: the recipe's, or as many as there are full batches."""
        return len(self.part.steps(len(self.data.train), 1))

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield this process's parts of the epoch's batches, from the `first`, counted from 0.

        What a step samples, such as regions, depends on the seed, the step and the process, so a
        training that goes on in the middle of an epoch samples the same.
        """
        steps = self.part.steps(len(self.data.train), epoch, first)
        for step, batch in zip(steps, self.source.training(steps), strict=True):
            torch.manual_seed(sample_seed(self.seed, step, self.processes.rank))
            yield batch

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss to minimise, the sum of its parts, and the batch's sums."""
        images, targets = batch
        parts = self._trained(images, targets)
        values = [parts[name] for name in self._parts]
        loss = torch.stack(values).sum()
        sums = torch.stack([loss, *values]).detach() * len(images)
        return loss, torch.cat([sums, sums.new_tensor([len(images)])])

    @torch.inference_mode()
    def detect(
        self, indices: range, stop: Callable[[], None] | None = None
    ) -> list[tuple[Target, Target]]:
        """Return what the detector finds in validation images, and what is there, on the CPU.

        With `stop` all processes do so together, and it is called before each batch.
        """
        self.model.eval()
        found = []
        begins = range(0, len(indices), EVALUATION_BATCH)
        for begin in self.processes.in_step(begins, len(begins), stop) if stop else begins:
            pairs = [self.data.validation[i] for i in indices[begin : begin + EVALUATION_BATCH]]
            predictions = self.model(to_device([image for image, _ in pairs], self.device))
            for prediction, (_, target) in zip(predictions, pairs, strict=True):
                found.append(({k: v.cpu() for k, v in prediction.items()}, target))
        return found

    def validate(self, stop: Callable[[], None]) -> dict[str, float]:
        """Return the mAP (%) of the whole validation set by the recipe's metric; see `Task`."""
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
        """Return a row of the history as text."""
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
        for i, (prediction, target) in enumerate(self.detect(shown)):
            arrays[f"image_{i}"] = self.data.validation[i][0].numpy()
            arrays |= {f"found_{k}_{i}": v.numpy() for k, v in prediction.items()}
            arrays |= {f"true_{k}_{i}": target[k].numpy() for k in ("boxes", "labels")}
        write_arrays(folder / DETECTIONS, arrays)
        return {"detections_sha256": sha256(folder / DETECTIONS)}

    def close(self) -> None:
        """End the worker processes, if there are any."""
        self.source.reader.close()


def random_scenes(spec: DetectionSpec, images: int) -> DetectionData:
    """Return images of noise with a box on each, on which nothing but speed can be measured."""
    dataset = spec.recipe.dataset
    size = dataset.image_size
    # Images that keep their proportion are mostly of 4:3.
    width = size * 4 // 3 if dataset.longest_side else size
    noise = torch.randint(256, (images, 3, size, width), dtype=torch.uint8)
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * size
    target = {"boxes": box, "labels": torch.tensor([1]), "crowd": torch.tensor([False])}
    target["difficult"] = target["crowd"]
    scenes = [(image, target) for image in noise]
    classes = tuple(map(str, range(dataset.classes)))
    grey, spread = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    return DetectionData(scenes, scenes[:1], classes, grey, spread, fingerprint="random")


def _initial(run: Run, folder: Path) -> Weights | None:
    path = initial_weights(run, folder)
    if path is None:
        return None
    if not path.exists():
        raise UserError(
            f"{path}: there are no weights to start the backbone from; train that run first, as "
            "the workflow does."
        )
    return read_state(path)
