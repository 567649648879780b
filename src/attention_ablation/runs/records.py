"""What the files of a run's folder hold, as records, and the one way in which they are read.

A fact that an older version did not record is unset, and not in `model_fields_set`.
"""

import csv
import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, read_bytes, read_text
from attention_ablation.base.model import Fraction, Model, one_line

Count = Annotated[int, Field(ge=0, lt=2**63)]
# A text as every format shows it.
Text = Annotated[str, AfterValidator(one_line)]
Size = tuple[Count, Count]  # height, width
NUMBERS = ("train_", "validation_")
# Columns of gradcam.csv, and what their means are called in gradcam.json.
GRADCAM_MEANS = {
    "energy_in_box": "energy_in_box",
    "hit": "hit_rate",
    "iou": "iou",
    "probability": "target_probability",
}
LONGEST_REASON = 200


class Metrics(Model):
    """`metrics.json`: what came out of a training, and what made it; see results/README.md."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    status: Literal["completed", "diverged"]
    epochs: Count | None = None
    started: float | None = None
    finished: float | None = None
    startup_seconds: float | None = None
    seconds: float | None = None
    compute_seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_mb: float | None = None
    peak_device_memory_mb: float | None = None
    dataset_fingerprint: Text | None = None
    dataset_composed_with: Text | None = None
    dataset_remarks: Text | None = None
    initial_sha256: Text | None = None
    processes: Count | None = None
    device: Text | None = None
    threads: Count | None = None
    git_commit: Text | None = None
    git_dirty: bool | None = None
    attention_ablation: Text | None = None
    python: Text | None = None
    torch: Text | None = None
    torchvision: Text | None = None
    numpy: Text | None = None
    weights_sha256: Text | None = None
    history_sha256: Text | None = None
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
        """All that was recorded: status, epochs, the last epoch's numbers, and the other facts."""
        known = self.model_dump(exclude_unset=True)
        return {k: known[k] for k in ("status", "epochs") if k in known} | self.numbers | known


class Result(Model):
    """`result.json`: what a finished run came to, from which its other files are restored."""

    metrics: Metrics
    history: str


class Failure(Model):
    """`failure.json`: why an attempt ended by itself."""

    status: Literal["failed"]
    reason: Annotated[Text, Field(min_length=1)]


class GradCam(Model):
    """`gradcam.json`: where a run's network looks; see evidence/explain.py.

    The digests are of gradcam.csv, gradcam.npz, and the weights that were explained.
    """

    status: Literal["completed", "diverged"]
    method: Text | None = None
    layer: Text | None = None
    map_size: Size | None = None
    least_map_size: Count | None = None
    last_map_size: Size | None = None
    images: Count | None = None
    empty_maps: Count | None = None
    threshold: float | None = None
    energy_in_box: Fraction | None = None
    hit_rate: Fraction | None = None
    iou: Fraction | None = None
    target_probability: Fraction | None = None
    uniform_map: Fraction | None = None
    images_sha256: Text | None = None
    maps_sha256: Text | None = None
    weights_sha256: Text | None = None

    @property
    def means(self) -> dict[str, float | None]:
        """The means over all images, None without boxes or maps."""
        return {name: getattr(self, name) for name in GRADCAM_MEANS.values()}


R = TypeVar("R", bound=Model)


def read_record(path: Path, model: type[R]) -> R:
    """Read a JSON file of a run's folder.

    Raises Missing, and UserError where it does not fit, in one line: `<file's name>: <why>`.
    """
    try:
        return model.model_validate_json(read_text(path))
    except Missing:
        raise
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name, 1)) from None
    except ValidationError as error:
        raise UserError(f"{path.name}: {_why(error)}") from None


def read_sealed(path: Path, digest: str | None) -> bytes:
    """Return a file's content. Raises as `read_bytes`, and UserError where its SHA-256 is another.

    Args:
        digest: the recorded one, None where none was recorded.
    """
    content = read_bytes(path)
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
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


def disagreement(history: str, metrics: Metrics) -> str | None:
    """Return in what a history's text is not that of the metrics, None where it is."""
    seal = metrics.history_sha256
    if seal and hashlib.sha256(history.encode()).hexdigest() != seal:
        return "history.csv has not the digest that was recorded"
    rows = parse_history(history)
    last = rows[-1] if rows else {}
    same = metrics.epochs == len(rows) and all(
        value == last.get(name) if value is not None else not math.isfinite(last.get(name, 0))
        for name, value in metrics.numbers.items()
    )
    return None if same else "the last epoch in history.csv has other numbers than the metrics"


def _why(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    key = ".".join(map(str, found["loc"]))
    text = (f"{key}: " if key else "") + found["msg"][0].lower() + found["msg"][1:]
    # A key may be anything.
    printable = "".join(c if c.isprintable() else " " for c in text.removeprefix("value error, "))
    return printable[:LONGEST_REASON]
