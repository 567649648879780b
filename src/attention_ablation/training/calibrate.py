"""Measured rates: a few steps of every distinct network of a plan, on the device at hand."""

import re
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from attention_ablation.base.io import write_json
from attention_ablation.cost.rates import Calibration, Measured, load_calibration, network_key
from attention_ablation.datasets.reading.data import ImageData, ImageSet
from attention_ablation.spec.spec import AnySpec, DetectionSpec, Run
from attention_ablation.training.classify import Classification
from attention_ablation.training.loop import Loop
from attention_ablation.training.machine import Machine
from attention_ablation.training.provenance import device_name
from attention_ablation.training.run import seed_everything
from attention_ablation.training.task import Task

STEPS, LEAST_SECONDS = 4, 1.0
# A CPU's rate hardly depends on the batch, and the paper's takes it a minute a step.
CPU_BATCH = 16


def calibrate(specs: Iterable[AnySpec], folder: Path, machine: Machine) -> Path:
    """Measure the networks that the device's calibration lacks; return the calibration's file.

    Each trains on random images for `STEPS` steps, repeated for `LEAST_SECONDS`, after as many to
    warm up. A network that does not fit the device is noted as such. What is measured is written
    after each network.
    """
    device, threads = machine.device, torch.get_num_threads()
    cpu = device.type == "cpu"
    title = device_name(device) + f", {threads} thread{'s' * (threads > 1)}" * cpu
    slug = re.sub(r"[\W_]+", "-", title.lower()).strip("-")
    path = folder / f"{slug}.json"
    calibration = Calibration(
        title=f"{title}, measured with torch {torch.__version__}",
        unit="CPU-hours" if cpu else "GPU-hours",
    )
    if path.exists():
        calibration = load_calibration(path)
    seed_everything(0, device)
    for key, spec in {network_key(spec): spec for spec in specs}.items():
        if key in calibration.measured:
            continue
        measured = _measure(spec, machine)
        rate = measured.images_per_second
        speed = f"{rate:.0f} images/s, " if rate else ""
        print(f"{measured.network}: {speed}{measured.note}", flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        changes = {
            "measured": calibration.measured | {key: measured},
            "memory_mb": max(calibration.memory_mb, peak),
        }
        calibration = calibration.model_copy(update=changes)
        write_json(path, calibration.model_dump())
    return path


def measured_loop(spec: AnySpec, machine: Machine) -> tuple[Loop, float]:
    """Return a loop that trained on random images, and its rate, images/s."""
    batch = _batch(spec, machine)
    loop = Loop(_task(spec, batch, machine))
    loop.epoch()
    seconds = images = 0.0
    while seconds < LEAST_SECONDS:
        rate = loop.epoch()["images_per_second"]
        images += STEPS * batch
        seconds += STEPS * batch / rate
    return loop, round(images / seconds, 1)


def _measure(spec: AnySpec, machine: Machine) -> Measured:
    detector = f" {spec.detector.name}" if isinstance(spec, DetectionSpec) else ""
    network = f"{spec.backbone.name}{detector} {spec.attention.slug}"
    note, cuda = f"batches of {_batch(spec, machine)}", machine.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(machine.device)
    try:
        rate = measured_loop(spec, machine)[1]
    except torch.OutOfMemoryError:
        note = f"does not fit the device with {note}"
        return Measured(network=network, images_per_second=None, note=note)
    if cuda:
        peak = torch.cuda.max_memory_allocated(machine.device) / 2**30
        note += f", {peak:.1f} GiB on the device"
    return Measured(network=network, images_per_second=rate, note=note)


def _batch(spec: AnySpec, machine: Machine) -> int:
    large = machine.device.type == "cpu" and spec.recipe.dataset.image_size > 64
    return min(spec.recipe.batch_size, CPU_BATCH if large else spec.recipe.batch_size)


def _task(spec: AnySpec, batch: int, machine: Machine) -> Task:
    """Return a training on random images, whose epoch has `STEPS` steps."""
    recipe: dict[str, Any] = {"batch_size": batch}
    if not isinstance(spec, DetectionSpec):
        return Classification(_run(spec, recipe), _images(spec, STEPS * batch), machine)
    from attention_ablation.training.detect import Detection, Material, random_scenes

    recipe |= {"steps_per_epoch": STEPS, "augmentation": "none"}
    scenes = Material(random_scenes(spec, STEPS * batch), None)
    return Detection(_run(spec, recipe, initial=None), scenes, machine)


def _run(spec: AnySpec, recipe: dict[str, Any], **others: Any) -> Run:
    changes = others | {"recipe": spec.recipe.model_copy(update=recipe)}
    return Run(seed=0, spec=spec.model_copy(update=changes))


def _images(spec: AnySpec, count: int) -> ImageData:
    dataset = spec.recipe.dataset

    def split(count: int) -> ImageSet:
        size = (count, 3, dataset.image_size, dataset.image_size)
        pixels = torch.randint(256, size, dtype=torch.uint8)
        return ImageSet(pixels, torch.randint(dataset.classes, (count,)))

    return ImageData(split(count), split(1), dataset.classes, 0.5, 0.25, "random")
