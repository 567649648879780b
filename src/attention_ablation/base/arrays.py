"""Named arrays in one file."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attention_ablation.base.io import write_bytes


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as a compressed `.npz`, whole or not at all; raises as `write_bytes`."""
    write_bytes(path, packed(arrays))


def packed(arrays: Mapping[str, Any]) -> bytes:
    """Return the content of a compressed `.npz`."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()
