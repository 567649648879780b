"""Grad-CAM of a finished run, over its whole validation set, into its folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from attention_ablation.analysis.gradcam import LEAST_MAP, Explained, choose, gradcam, layers
from attention_ablation.analysis.localisation import box_share, energy_in_box, hit, iou
from attention_ablation.data.load import ImageSet, load, network_input
from attention_ablation.models.build import build
from attention_ablation.study.errors import UserError
from attention_ablation.study.runs import (
    GRADCAM,
    GRADCAM_IMAGES,
    GRADCAM_MAPS,
    GRADCAM_MEANS,
    WEIGHTS,
    read_outcome,
    read_run,
    write_json,
)
from attention_ablation.study.spec import Spec

# Raised when a number below can come out differently for the same run.
VERSION = 1
# The map's part that is compared with the box: the places above half of its maximum.
THRESHOLD = 0.5
# Classes with an image to show; it is always the first of its class.
SHOWN = 10


def explain(spec: Path, data_folder: Path, device: torch.device) -> dict[str, Any]:
    """Write `gradcam.csv`, `gradcam.npz` and `gradcam.json` of a run, and return the last one.

    The box of the target is what maps are measured against, not its mask: a digit's strokes are
    thinner than one place of a map, and other data sets have boxes only. Without boxes only the
    probability is measured. A diverged run has no maps, and its file says so.

    gradcam.csv: index in the validation set, label, energy_in_box, hit, iou, probability.
    gradcam.json: the columns' means, and how and on what they were made. `layer` is the last whose
    `map_size` (height, width) is at least `least_map_size`; `last_map_size` is that of the last
    convolution's output; `uniform_map` is the energy_in_box of a map without preference.
    gradcam.npz, of the first image of each of the first `SHOWN` classes: index, label, image
    (n, C, H, W) uint8, map (n, H, W) float16 as shares of its maximum, probability, and box (n, 4).

    Raises UserError where the run has not finished, its weights are gone, or the data are not those
    that it was trained on.
    """
    run, folder = read_run(spec), spec.parent
    outcome = read_outcome(folder)
    facts = {"status": outcome["status"], "method": "Grad-CAM", "version": VERSION}
    if outcome["status"] == "diverged":
        pd.DataFrame(columns=["index", "label"]).to_csv(folder / GRADCAM_IMAGES, index=False)
        np.savez(folder / GRADCAM_MAPS)
        write_json(folder / GRADCAM, facts | {"images": 0})
        return facts
    if outcome["status"] != "completed":
        raise UserError(
            f"{folder}: expected a finished run, whose weights can be explained, but it is "
            f"{outcome['status']}; train it first."
        )
    if not isinstance(run.spec, Spec):
        raise UserError(f"{folder}: expected a classification run; Grad-CAM explains no detector.")
    data = load(run.spec.recipe.dataset, data_folder)
    if data.fingerprint != outcome["dataset_fingerprint"]:
        raise UserError(
            f"{data_folder / str(run.spec.recipe.dataset.prepared)}: expected the data set that "
            f"{folder} was trained on, fingerprint {outcome['dataset_fingerprint']}, got "
            f"{data.fingerprint}; train the run again, in another folder."
        )
    model = build(run.spec.backbone, run.spec.attention, data.classes)
    stages: Any = model.stages  # every network of models/ has them
    model.load_state_dict(_weights(folder / WEIGHTS))
    model.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)

    validation = data.validation
    images = network_input(validation.images, data.mean, data.std).to(device)
    candidates = layers(model, stages, images[:1])
    layer = choose(candidates)
    explained = gradcam(model, layer.module, images, validation.labels.to(device))
    frame = measure(explained, validation)
    frame.to_csv(folder / GRADCAM_IMAGES, index=False, float_format="%.6g")
    shown: dict[str, Any] = _shown(explained, validation)
    np.savez(folder / GRADCAM_MAPS, **shown)
    present = {mean: frame[name].mean() for name, mean in GRADCAM_MEANS.items() if name in frame}
    if validation.boxes is not None:
        present["uniform_map"] = box_share(_size(images), validation.boxes.numpy()).mean()
    found = facts | {
        "layer": layer.name,
        "map_size": list(layer.size),
        "least_map_size": LEAST_MAP,
        "last_map_size": list(candidates[-1].size),
        "images": len(frame),
        "empty_maps": int((explained.maps.max(axis=(1, 2)) == 0).sum()),
        "threshold": THRESHOLD,
        **{name: round(float(value), 6) for name, value in present.items()},
    }
    write_json(folder / GRADCAM, found)  # last: who sees it finds the others
    return found


def measure(explained: Explained, images: ImageSet) -> pd.DataFrame:
    """Return a row per image, in the columns of `gradcam.csv`; without boxes fewer of them."""
    frame = pd.DataFrame({"label": images.labels.numpy()}).rename_axis("index").reset_index()
    if images.boxes is not None:
        maps, boxes = explained.maps, images.boxes.numpy()
        frame["energy_in_box"] = energy_in_box(maps, boxes)
        frame["hit"] = hit(maps, boxes)
        frame["iou"] = iou(maps, boxes, THRESHOLD)
    return frame.assign(probability=explained.probability.astype(float))


def _shown(explained: Explained, images: ImageSet) -> dict[str, NDArray[Any]]:
    first = np.unique(images.labels.numpy(), return_index=True)[1][:SHOWN]
    maps = explained.maps[first]
    highest = maps.max(axis=(1, 2), keepdims=True)
    shown = {
        "index": first,
        "label": images.labels.numpy()[first],
        "image": images.images.numpy()[first],
        "map": np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0).astype("f2"),
        "probability": explained.probability[first],
    }
    return shown if images.boxes is None else shown | {"box": images.boxes.numpy()[first]}


def _size(images: torch.Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _weights(path: Path) -> dict[str, Any]:
    try:
        weights: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError(
            f"{path}: the run's weights are gone; delete its folder to train it again."
        ) from None
    return weights
