"""Errors of given weights on a validation set: a finished run's own, or published ones."""

from contextlib import closing
from dataclasses import dataclass

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.networks.published import Published, load_weights, read_weights
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.training.classify import Classification
from attention_ablation.training.loop import autocast
from attention_ablation.training.machine import Machine
from attention_ablation.training.run import seed_everything
from attention_ablation.training.task import means


@dataclass(frozen=True)
class Evaluated:
    """Errors on a validation set, %, of `images` images; what is published for the weights."""

    loss: float
    top1_error: float
    top5_error: float
    images: int
    published: Published | None


def evaluate(run: Run, weights: str, folders: Folders, machine: Machine) -> Evaluated:
    """Evaluate weights in a run's network, with its precision, on its recipe's validation set.

    Args:
        weights: a file or a name, see `read_weights`; of a finished run's own weights this gives
            the numbers that it recorded, on its machine.

    Raises UserError where the weights cannot be read or are not of this network, and for detectors.
    """
    if not isinstance(run.spec, Spec):
        raise UserError(f"{run.path}: expected a classification run; this evaluates no detector.")
    device = machine.device  # refused before any file is read
    state, published = read_weights(weights)
    seed_everything(run.seed, device)
    data = load(run.spec.recipe.dataset, folders)
    task = Classification(run, data, machine)
    load_weights(task.model, state, weights)
    with closing(task), autocast(device, run.spec.recipe):
        *values, images = task.evaluate().tolist()
    return Evaluated(**means(task.columns, values, images), images=int(images), published=published)
