"""Image files of the detection data sets' fixtures."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attention_ablation.datasets.reading.data import DetectionData

Corners = tuple[float, float, float, float]


def jpeg(path: Path, width: int, height: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def everything(data: DetectionData) -> list[dict[str, Any]]:
    return [data.train[i][1] for i in range(len(data.train))]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
