"""What the files of a run's folder hold, as records."""

import csv
import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes
from attention_ablation.base.model import Fraction, Model, one_line

Count = Annotated[int, Field(ge=0, lt=2**63)]
# A text as every format shows it.
Text = Annotated[str, AfterValidator(one_line)]
Size = tuple[Count, Count]  # height, width
Ended = Literal["completed", "diverged"]
NUMBERS = ("train_", "validation_")
# Columns of gradcam.csv, and what their means are called in gradcam.json.
GRADCAM_MEANS = {
    "energy_in_box": "energy_in_box",
    "hit": "hit_rate",
    "iou": "iou",
    "probability": "target_probability",
}


class Metrics(Model):
    """`metrics.json`: what came out of a training, and what made it; see results/README.md."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    status: Ended
    epochs: Count
    started: float
    finished: float
    startup_seconds: float
    seconds: float
    compute_seconds: float
    images_per_second: float
    peak_memory_mb: float
    peak_device_memory_mb: float | None = None
    joules: float | None = None
    dataset_fingerprint: Text
    dataset_composed_with: Text | None
    dataset_remarks: Text | None = None
    compiled: bool | None = None
    processes: Count
    initial_sha256: Text | None = None
    device: Text
    threads: Count
    git_commit: Text | None
    git_dirty: bool
    attention_ablation: Text
    python: Text
    torch: Text
    torchvision: Text
    numpy: Text
    weights_sha256: Text
    history_sha256: Text
    detections_sha256: Text | None = None

    @model_validator(mode="after")
    def _only_numbers_are_named_freely(self) -> Self:
        if unknown := [name for name in self.numbers if not name.startswith(NUMBERS)]:
            raise ValueError(f"unknown key {unknown[0]!r}")
        return self

    @property
    def numbers(self) -> dict[str, float | None]:
        """The last epoch's numbers, `train_*` and `validation_*`; None where one is not finite."""
        return dict(self.__pydantic_extra__)

    @property
    def recorded(self) -> dict[str, str | float | bool | None]:
        """All that was recorded, in the order in which a training writes it."""
        known = self.model_dump(exclude_unset=True)
        return {k: known[k] for k in ("status", "epochs")} | self.numbers | known


class Result(Model):
    """`result.json`: what a finished run came to, from which its other files are restored.

    The last epoch of `history`, the text of history.csv, has the numbers of the metrics.
    """

    metrics: Metrics
    history: str

    @model_validator(mode="after")
    def _history_is_that_of_the_metrics(self) -> Self:
        metrics = self.metrics
        if hashlib.sha256(self.history.encode()).hexdigest() != metrics.history_sha256:
            raise ValueError("history.csv has not the digest that was recorded")
        try:
            rows = parse_history(self.history)
        except UserError as error:
            raise ValueError(str(error)) from None
        last = rows[-1] if rows else {}
        same = metrics.epochs == len(rows) and all(
            value == last.get(name) if value is not None else not math.isfinite(last.get(name, 0))
            for name, value in metrics.numbers.items()
        )
        if not same:
            raise ValueError("the last epoch in history.csv has other numbers than the metrics")
        return self


class Failure(Model):
    """`failure.json`: why an attempt ended by itself."""

    status: Literal["failed"]
    reason: Annotated[Text, Field(min_length=1)]


class GradCam(Model):
    """`gradcam.json`: where a run's network looks; see evidence/explain.py.

    The digests are of gradcam.csv, gradcam.npz, and the weights that were explained.
    """

    status: Ended
    method: Text
    layer: Text | None = None
    map_size: Size | None = None
    least_map_size: Count | None = None
    last_map_size: Size | None = None
    images: Count
    empty_maps: Count | None = None
    threshold: float | None = None
    energy_in_box: Fraction | None = None
    hit_rate: Fraction | None = None
    iou: Fraction | None = None
    target_probability: Fraction | None = None
    uniform_map: Fraction | None = None
    images_sha256: Text
    maps_sha256: Text
    weights_sha256: Text

    @property
    def means(self) -> dict[str, float | None]:
        """The means over all images, None without boxes or maps."""
        return {name: getattr(self, name) for name in GRADCAM_MEANS.values()}


def read_sealed(path: Path, digest: str | None) -> bytes:
    """Return a file's content. Raises as `read_bytes`, and UserError where its SHA-256 is another.

    Args:
        digest: the recorded one; None, which matches no content, where the run has no such file.
    """
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{path.name} has not the digest that was recorded")
    return content


def parse_history(text: str) -> list[dict[str, float]]:
    """Return the rows of a `history.csv`, one for each epoch from 1; an empty cell is NaN.

    Raises UserError where it is no history.
    """
    try:
        rows = [
            {name: float(cell or "nan") for name, cell in row.items()}
            for row in csv.DictReader(text.splitlines(), restkey="", restval="missing")
        ]
        if [row["epoch"] for row in rows] == list(range(1, len(rows) + 1)):
            return rows
    except (csv.Error, KeyError, TypeError, ValueError):
        pass
    raise UserError("history.csv: expected a row of numbers for each epoch")
