"""Energy that a training's GPUs used, by the counter in them."""

import math

from attention_ablation.training.machine import Machine


class Energy:
    """Joules that the GPUs of all processes have used since this was made, and in earlier attempts.

    `earlier` is what a checkpoint recorded. What a killed attempt used after its last checkpoint is
    not counted.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.earlier = 0.0
        self.start = counter(machine)

    def joules(self) -> float:
        """Return the sum; NaN where it is not known of a GPU. All processes call it together."""
        used = counter(self.machine) - self.start
        return self.earlier + sum(self.machine.processes.gather([used]))


def counter(machine: Machine) -> float:
    """Return the joules of this process's GPU since its driver was loaded; NaN where not known.

    NVML counts them from the Volta generation on: of a whole GPU, so nothing is known of a part
    (MIG) or of one of several runs that share a GPU.
    """
    if machine.device.type != "cuda" or machine.runs_per_gpu > 1:
        return math.nan
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        # A part of a GPU has a UUID that NVML does not know as a GPU's.
        uuid = torch.cuda.get_device_properties(machine.device).uuid
        gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1000
    except pynvml.NVMLError:
        return math.nan
