"""What trainings in the tests' own process run on, and where their data are."""

from pathlib import Path

from attention_ablation.datasets.contract import Folders
from attention_ablation.training.machine import Machine

ONE_CPU = Machine("cpu")


def in_one(folder: Path) -> Folders:
    """Everything in one folder."""
    return Folders(folder, folder)
