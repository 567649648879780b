"""Errors of given weights on a validation set: a finished run's own, or published ones."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import load
from attention_ablation.datasets.folders import Folders
from attention_ablation.networks.published import Published, load_weights, read_weights
from attention_ablation.runs.folder import WEIGHTS, read_run
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.training.classify import Classification
from attention_ablation.training.loop import PRECISIONS
from attention_ablation.training.run import seed_everything


@dataclass(frozen=True)
class Evaluated:
    """Errors on a validation set, %, of `images` images; what is published for the weights."""

    loss: float
    top1_error: float
    top5_error: float
    images: int
    published: Published | None


def evaluate_run(
    spec: Path, data_folder: Path, device: torch.device, workers: int = 0
) -> tuple[Run, Evaluated]:
    """Evaluate the weights that a finished run kept; on its machine that gives its own numbers.

    Raises UserError where there is no such run or its weights are gone or of another network.
    """
    run = read_run(spec)
    return run, evaluate(run, str(spec.parent / WEIGHTS), data_folder, device, workers)


def evaluate(
    run: Run, weights: str, data_folder: Path, device: torch.device, workers: int = 0
) -> Evaluated:
    """Evaluate weights in the network of a run, on the validation set of its recipe.

    Args:
        run: its network, data set and precision count.
        weights: a file or a name, see `read_weights`.
        data_folder: where data sets are.
        device: see `choose_device`.
        workers: processes that decode image files.

    Raises UserError where the weights cannot be read or are not of this network, and for detectors.
    """
    if not isinstance(run.spec, Spec):
        raise UserError(f"{run.path}: expected a classification run; this evaluates no detector.")
    state, published = read_weights(weights)
    seed_everything(run.seed, device)
    data = load(run.spec.recipe.dataset, Folders(data_folder, data_folder))
    task = Classification(run, data, device, workers=workers)
    load_weights(task.model, state, weights)
    dtype = PRECISIONS[run.spec.recipe.precision]
    cast = torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
    with closing(task), cast:
        sums: Tensor = task.evaluate()
    loss, top1, top5, images = sums.tolist()
    # Rounded as a training does, whose numbers these are compared with.
    return Evaluated(
        loss=round(loss / images, 6),
        top1_error=round(100 * top1 / images, 6),
        top5_error=round(100 * top5 / images, 6),
        images=int(images),
        published=published,
    )
