"""Regenerate a deep-learning paper's tables with one command; its gates and networks in Python."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attention_ablation.api import create_gate, create_network, load_run

__version__ = "0.1.0"
__all__ = ["create_gate", "create_network", "load_run"]

# When this process began, as near as Python code can tell; a run's metrics count from here.
STARTED = time.perf_counter()


def __getattr__(name: str) -> Any:
    # api.py imports torch, for which neither planning nor the command's help waits.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from attention_ablation import api

    return getattr(api, name)
