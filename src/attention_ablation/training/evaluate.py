"""Errors of given weights on a validation set: a finished run's own, or published ones."""

from contextlib import closing

from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.networks.published import Published, load_weights, read_weights
from attention_ablation.spec.spec import Run, Spec
from attention_ablation.training.classify import Classification
from attention_ablation.training.machine import Machine
from attention_ablation.training.precision import autocast
from attention_ablation.training.run import seed_everything


def evaluate(
    run: Run, weights: str, folders: Folders, machine: Machine
) -> tuple[dict[str, float], int, Published | None]:
    """Evaluate weights in a run's network, with its precision, on its recipe's validation set.

    Returns loss and errors (%), of how many images, and what is published for the weights: a file
    or a name, see `read_weights`. A finished run's own give the numbers that it recorded, on its
    machine. Raises UserError where they cannot be read or are another network's or task's.
    """
    if not isinstance(run.spec, Spec):
        raise UserError(f"{run.path}: expected a classification run, which alone has errors.")
    device = machine.device  # refused before any file is read
    state, published = read_weights(weights)
    seed_everything(run.seed, device)
    data = load(run.spec.recipe.dataset, folders)
    task = Classification(run, data, machine)
    load_weights(task.model, state, weights)
    with closing(task), autocast(device, run.spec.recipe):
        return task.validate(lambda: None), len(data.validation), published
