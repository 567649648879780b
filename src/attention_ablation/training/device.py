"""The device that a training runs on."""

import os
import re

import torch

from attention_ablation.base.errors import UserError
from attention_ablation.training.processes import local_rank
from attention_ablation.training.slots import VISIBLE, granted


def choose_device(name: str) -> torch.device:
    """Return the device of this process.

    Args:
        name: 'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:1' ... Under torchrun a
            process takes the GPU of its number on the node.

    Raises UserError for another name and for a GPU that torch does not find; with 'auto' where one
    was granted, because a training of days would take months on the CPU; and where torchrun's
    processes do not have a GPU each.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and (gpus := granted()):
            source = f"{VISIBLE} is" if VISIBLE in os.environ else "nvidia-smi lists"
            raise UserError(
                f"expected a GPU, because {source} {', '.join(gpus)}, but torch "
                f"{torch.__version__} finds none; check the driver and that this torch is built "
                f"for it, or pass --device cpu, or set {VISIBLE} to nothing for all trainings."
            )
    if not re.fullmatch("cpu|cuda(:[0-9]{1,3})?", name):
        raise UserError(f"--device: expected auto, cpu, cuda, cuda:0, cuda:1 ..., got '{name}'.")
    device, number = torch.device(name), local_rank()
    if device.type != "cuda":
        return device
    found = torch.cuda.device_count()
    if not found or (number is None and (device.index or 0) >= found):
        raise UserError(
            f"--device: expected one of the GPUs that torch {torch.__version__} finds, of which "
            f"there are {found}, got {name}; name another device, such as cpu."
        )
    if number is None:
        return device
    if device.index is not None:
        raise UserError(
            f"--device: expected auto, cpu or cuda under torchrun, where each process takes the "
            f"GPU of its number, got {name}; choose GPUs with {VISIBLE}."
        )
    if number >= found:
        raise UserError(
            f"--nproc-per-node: expected at most {found}, the GPUs that torch finds here, got "
            f"{number + 1} or more; start a process for each GPU."
        )
    return torch.device("cuda", number)
