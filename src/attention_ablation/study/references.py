"""Trainings that others published, which a study's rows can be held beside."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_csv
from attention_ablation.base.model import Line, Model, Prose

# What claims compare, and the columns of a curve that have it; others are left alone.
COLUMNS = {"top1_error": "val_top1_error", "train_top1_error": "train_top1_error"}


class Curve(Model):
    """One published training."""

    label: Line
    file: str = Field(
        description="A CSV in the study's folder, a line for each epoch: epoch, train_top1_error "
        "and val_top1_error, %."
    )
    row: str | None = Field(
        None, description="The row it stands for, 'table4:resnet50+cbam'; null: none of the study."
    )


class Reference(Model):
    """Published trainings of one recipe, another than the tier's."""

    title: Line
    source: Line = Field(description="Where they were published.")
    protocol: Prose = Field(description="Data set, epochs and schedule.")
    curves: dict[Line, Curve] = Field(default_factory=dict)
    results: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Where there are no curves: by row, 'Z1:resnet50+se', its last numbers by "
        "metric.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.curves) == bool(self.results):
            raise ValueError("expected either curves or results; give one of them")
        return self

    def numbers(self, row: str, folder: Path) -> dict[str, float]:
        """Return the last numbers of a row by metric, none where it has none.

        `folder` is the study's. Raises UserError as `read_curve` does.
        """
        for curve in self.curves.values():
            if curve.row == row:
                curves = read_curve(folder / curve.file)
                return {metric: curves[metric][-1] for metric in COLUMNS}
        return self.results.get(row, {})


def read_curve(path: Path) -> dict[str, list[float]]:
    """Return a curve's epochs, as `epoch`, and its errors (%) by metric.

    Raises UserError where the file is not such a curve, epochs counted from 1 without a gap.
    """
    needed = {"epoch": "epoch"} | COLUMNS
    columns, records = read_csv(path)
    lines, names = [line for _, line in records], ", ".join(needed.values())
    if not lines or not set(needed.values()) <= set(columns):
        raise UserError(f"{path}: expected lines below the columns {names}.")
    try:
        curve = {name: [float(line[of]) for line in lines] for name, of in needed.items()}
    except (TypeError, ValueError):
        raise UserError(f"{path}: expected numbers below {names}.") from None
    if curve["epoch"] != [*range(1, len(lines) + 1)]:
        raise UserError(f"{path}: expected epochs 1, 2, 3 and so on, a line for each.")
    if not all(0 <= value <= 100 for name in COLUMNS for value in curve[name]):  # nan is not
        raise UserError(f"{path}: expected errors from 0 to 100 %.")
    return curve
