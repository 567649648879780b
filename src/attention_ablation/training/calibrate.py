"""Measured rates: a few steps of every distinct network of a plan, on the device at hand."""

import resource
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from attention_ablation.base.io import write_json
from attention_ablation.cost.rates import Calibration, Measured, load_calibration, network_key
from attention_ablation.datasets.reading.data import DetectionData, ImageData, ImageSet
from attention_ablation.spec.spec import AnySpec, DetectionSpec, FrontEndSpec, Run
from attention_ablation.training.loop import Loop
from attention_ablation.training.machine import Machine
from attention_ablation.training.provenance import device_name
from attention_ablation.training.run import seed_everything, task_class

STEPS, LEAST_SECONDS = 4, 1.0
# A CPU's rate hardly depends on the batch, and the paper's takes it a minute a step.
CPU_BATCH = 16


def calibrate(specs: Iterable[AnySpec], folder: Path, machine: Machine) -> Path:
    """Measure the networks that the device's calibration lacks; return the calibration's file.

    Each trains on random images for `STEPS` steps, repeated for `LEAST_SECONDS`, after as many to
    warm up. A network that does not fit the device is noted as such. What is measured is written
    after each network.
    """
    device = machine.device
    title = device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        title += f", {threads} thread{'s' * (threads > 1)}"
    slug = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
    path = folder / f"{slug}.json"
    if path.exists():
        calibration = load_calibration(path)
    else:
        calibration = Calibration(
            title=f"{title}, measured with torch {torch.__version__}",
            unit="CPU-hours" if device.type == "cpu" else "GPU-hours",
        )
    seed_everything(0, device)
    for key, spec in {network_key(spec): spec for spec in specs}.items():
        if key in calibration.measured:
            continue
        measured = _measure(spec, machine)
        rate = measured.images_per_second
        speed = f"{rate:.0f} images/s, " if rate else ""
        print(f"{measured.network}: {speed}{measured.note}", flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        calibration = calibration.model_copy(
            update={
                "measured": calibration.measured | {key: measured},
                "memory_mb": max(calibration.memory_mb, peak),
            }
        )
        write_json(path, calibration.model_dump())
    return path


def measured_loop(spec: AnySpec, machine: Machine) -> tuple[Loop, float]:
    """Return a loop that trained on random images, and its rate, images/s."""
    batch = _batch(spec, machine.device)
    changes: dict[str, Any] = {"batch_size": batch}
    if isinstance(spec, DetectionSpec):
        changes |= {"steps_per_epoch": STEPS, "augmentation": "none"}
    recipe = spec.recipe.model_copy(update=changes)
    run = Run(seed=0, spec=spec.model_copy(update={"recipe": recipe}))
    random = _random_scenes if isinstance(spec, DetectionSpec) else _random_images
    loop = Loop(task_class(run)(run, random(spec.recipe.dataset, STEPS * batch), machine))
    seconds = images = 0.0
    with closing(loop.task):  # or its images would stay in memory
        loop.epoch()
        while seconds < LEAST_SECONDS:
            rate = loop.epoch()["images_per_second"]
            images += STEPS * batch
            seconds += STEPS * batch / rate
    return loop, round(images / seconds, 1)


def _measure(spec: AnySpec, machine: Machine) -> Measured:
    device = machine.device
    network: str
    if isinstance(spec, FrontEndSpec):
        network = spec.front_end
    else:
        detector = f" {spec.detector.name}" if isinstance(spec, DetectionSpec) else ""
        detector += f" {spec.backbone.front_end}" if spec.backbone.front_end else ""
        network = f"{spec.backbone.name}{detector} {spec.attention.slug}"
    note = f"batches of {_batch(spec, device)}"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        rate = measured_loop(spec, machine)[1]
    except torch.OutOfMemoryError:
        note = f"does not fit the device with {note}"
        return Measured(network=network, images_per_second=None, note=note)
    if device.type == "cuda":
        note += f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the device"
    return Measured(network=network, images_per_second=rate, note=note)


def _batch(spec: AnySpec, device: torch.device) -> int:
    large = device.type == "cpu" and spec.recipe.dataset.image_size > 64
    return min(spec.recipe.batch_size, CPU_BATCH if large else spec.recipe.batch_size)


def _random_images(dataset: Any, images: int) -> ImageData:
    def split(count: int) -> ImageSet:
        size = (count, 3, dataset.image_size, dataset.image_size)
        pixels = torch.randint(256, size, dtype=torch.uint8)
        return ImageSet(pixels, torch.randint(dataset.classes, (count,)))

    return ImageData(split(images), split(1), dataset.classes, 0.5, 0.25, "random")


def _random_scenes(dataset: Any, images: int) -> DetectionData:
    """Return images of noise with a box on each, on which nothing but speed can be measured."""
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
