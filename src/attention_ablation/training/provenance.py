"""Where a number comes from: code, packages and hardware of a run.

The machine's name is left out on purpose: it changes no number, and results are made public.
"""

import platform
import re
import resource
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attention_ablation


def provenance(device: torch.device) -> dict[str, Any]:
    """Return the facts that `metrics.json` records beside the numbers."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(
            _git("status", "--porcelain", "--untracked-files=no")
            or _git("ls-files", "--others", "--exclude-standard")  # new files of the package
        ),
        "attention_ablation": attention_ablation.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _torchvision(),
        "numpy": np.__version__,
    }


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return the most memory so far, MB (2**20 bytes): resident, and torch's on a GPU."""
    peak = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}
    if device.type == "cuda":
        peak["peak_device_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return {name: round(megabytes, 1) for name, megabytes in peak.items()}


def device_name(device: torch.device) -> str:
    """Return the name by which its maker sells a GPU or CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _torchvision() -> str:
    """Return torchvision's `__version__` from its file: importing it would take a second.

    The version of the installed package lacks the build, such as '+cu132'.
    """
    package = find_spec("torchvision")
    assert package is not None
    text = Path(str(package.origin)).with_name("version.py").read_text("utf-8")
    found = re.search("__version__ = ['\"](.+)['\"]", text)
    return found[1] if found else version("torchvision")


def _git(*arguments: str) -> str | None:
    """Return what git says of the code's repository, None where it is in none."""
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(attention_ablation.__file__).parent,
            capture_output=True,
            check=True,
            encoding="utf-8",
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
