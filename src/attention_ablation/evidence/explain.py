"""Grad-CAM of a finished run, over its whole validation set, into its folder."""

import hashlib
import io
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import (
    Missing,
    read_bytes,
    write_arrays,
    write_json,
    write_text,
)
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.datasets.reading.data import ImageData, ImageSet
from attention_ablation.evidence.gradcam import LEAST_MAP, choose, gradcam, layers
from attention_ablation.evidence.localisation import box_share, energy_in_box, hit, iou
from attention_ablation.feed.batches import source
from attention_ablation.feed.order import Part
from attention_ablation.networks.build import build
from attention_ablation.runs import folder as files
from attention_ablation.runs.records import GRADCAM_MEANS, GradCam, Metrics
from attention_ablation.spec.spec import Spec
from attention_ablation.training.machine import Machine
from attention_ablation.training.precision import set_tf32

# The map's part that is compared with the box: the places above half of its maximum.
THRESHOLD = 0.5
# Classes with an image to show; it is always the first of its class.
SHOWN = 10


def explain(spec: Path, folders: Folders, machine: Machine) -> GradCam:
    """Write `gradcam.csv`, `gradcam.npz` and `gradcam.json` of a run, and return the last one.

    Maps are measured against the target's box, not its mask: a digit's strokes are thinner than one
    place of a map, and other data sets have boxes only. Without boxes only the probability is
    measured. A diverged run has no maps, and its file says so.

    gradcam.csv: index in the validation set, label, energy_in_box, hit, iou, probability.
    gradcam.json: the columns' means, how and on what they were made, and digests. `layer` is the
    last whose `map_size` (height, width) is at least `least_map_size`; `last_map_size` is that of
    the last convolution's output; `uniform_map` is the energy_in_box of a map without preference.
    gradcam.npz, of the first image of each of the first `SHOWN` classes: index, label, image
    (n, C, H, W) uint8, map (n, H, W) float16 as shares of its maximum, probability, and box (n, 4).

    Raises UserError where the run has not finished, its weights are gone, or the data are not those
    that it was trained on.
    """
    run, folder = files.read_run(spec), spec.parent
    outcome = files.read_outcome(folder)
    metrics = outcome.metrics
    if metrics is None:
        raise UserError(
            f"{folder}: expected a finished run, whose weights can be explained, but it is "
            f"{outcome.status}; train it first."
        )
    if metrics.status == "diverged":
        write_text(folder / files.GRADCAM_IMAGES, "index,label\n")
        write_arrays(folder / files.GRADCAM_MAPS, {})
        return _write(folder, metrics, {"images": 0, "weights_sha256": metrics.weights_sha256})
    if not isinstance(run.spec, Spec):
        raise UserError(f"{folder}: expected a classification run, which alone Grad-CAM explains.")
    if run.spec.backbone.front_end:
        raise UserError(
            f"{folder}: expected a network without a front-end, which Grad-CAM does not explain; "
            "leave the row out of the figure."
        )
    data = _load_data(run.spec, folder, metrics, folders)
    size = run.spec.recipe.dataset.image_size
    model = build(run.spec.backbone, run.spec.attention, data.classes, size)
    digest = _load_weights(model, folder / files.WEIGHTS)
    set_tf32(run.spec.recipe)
    model.to(machine.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)

    labels: NDArray[np.int64] = np.asarray(data.validation.labels)
    boxes = None
    if isinstance(data.validation, ImageSet) and data.validation.boxes is not None:
        boxes = data.validation.boxes.numpy()
    first = np.unique(labels, return_index=True)[1][:SHOWN]
    frames, maps, empty, done = [], {}, 0, 0
    part = Part(run.spec.recipe, run.seed, 0, 1)
    with closing(source(data, part, machine.device, machine.workers)) as batches:
        validation = batches.validation()
        example = next(validation)
        stages: Any = model.stages  # every network has them
        candidates = layers(model, stages, example[0][:1])
        layer = choose(candidates)
        for images, of in chain([example], validation):
            explained = gradcam(model, layer.module, images, of)
            end = done + len(of)
            columns = {}
            if boxes is not None:
                columns["energy_in_box"] = energy_in_box(explained.maps, boxes[done:end])
                columns["hit"] = hit(explained.maps, boxes[done:end])
                columns["iou"] = iou(explained.maps, boxes[done:end], THRESHOLD)
            columns["probability"] = explained.probability.astype(float)
            frames.append(pd.DataFrame(columns))
            empty += int((explained.maps.max(axis=(1, 2)) == 0).sum())
            # Of the others nothing is kept: 50,000 maps are 10 GB.
            for index in first[(first >= done) & (first < end)]:
                map_ = explained.maps[index - done]
                share = np.divide(map_, map_.max(), out=np.zeros_like(map_), where=map_.max() > 0)
                maps[index] = share.astype(np.float16)
            done = end
        shown_pixels = batches.pixels(first.tolist()).numpy()
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(0, "label", labels)
    shown = {
        "index": first,
        "label": labels[first],
        "image": shown_pixels,
        "map": np.stack([maps[index] for index in first]),
        "probability": frame["probability"].to_numpy()[first].astype(np.float32),
    }
    means = {mean: frame[name].mean() for name, mean in GRADCAM_MEANS.items() if name in frame}
    if boxes is not None:
        shown["box"] = boxes[first]
        means["uniform_map"] = box_share((images.shape[2], images.shape[3]), boxes).mean()
    text = frame.rename_axis("index").to_csv(float_format="%.6g")
    write_text(folder / files.GRADCAM_IMAGES, text)
    write_arrays(folder / files.GRADCAM_MAPS, shown)
    facts = {
        "layer": layer.name,
        "map_size": layer.size,
        "least_map_size": LEAST_MAP,
        "last_map_size": candidates[-1].size,
        "images": len(frame),
        "empty_maps": empty,
        "threshold": THRESHOLD,
        **{name: round(float(value), 6) for name, value in means.items()},
        "weights_sha256": digest,
    }
    return _write(folder, metrics, facts)


def _load_data(spec: Spec, folder: Path, metrics: Metrics, folders: Folders) -> ImageData:
    dataset = spec.recipe.dataset
    data: ImageData = load(dataset, folders)
    if data.fingerprint != metrics.dataset_fingerprint:
        raise UserError(
            f"{dataset.place(folders)}: expected the data set that {folder} was trained on, "
            f"fingerprint {metrics.dataset_fingerprint}, got {data.fingerprint}; train the run "
            "again, in another folder."
        )
    return data


def _write(folder: Path, metrics: Metrics, facts: dict[str, Any]) -> GradCam:
    # The last file, so that who sees it finds the others.
    record = GradCam(
        status=metrics.status,
        method="Grad-CAM",
        images_sha256=files.sha256(folder / files.GRADCAM_IMAGES),
        maps_sha256=files.sha256(folder / files.GRADCAM_MAPS),
        **facts,
    )
    write_json(folder / files.GRADCAM, record.model_dump(exclude_unset=True))
    return record


def _load_weights(model: nn.Module, path: Path) -> str:
    """Load a run's weights, and return the SHA-256 of their file."""
    again = "delete its folder to train it again"
    try:
        content = read_bytes(path)
        model.load_state_dict(torch.load(io.BytesIO(content), "cpu", weights_only=True))
    except Missing:
        raise UserError(f"{path}: the run's weights are gone; {again}.") from None
    except UserError:
        raise
    except Exception:  # torch raises many kinds for what it has not written
        raise UserError(f"{path}: these are no weights of this network; {again}.") from None
    return hashlib.sha256(content).hexdigest()
