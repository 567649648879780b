"""Times of training steps that a benchmark measured, which a study's tables show."""

from pathlib import Path

from pydantic import Field

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_csv
from attention_ablation.base.model import Model, Prose


class Times(Model):
    """Times of a training step over one of the same network without a gate, by a benchmark."""

    file: str = Field(
        description="A CSV in the study's folder, a line for each network: backbone, attention, "
        "time_over_bare."
    )
    conditions: Prose = Field(description="Machine, image size, batch, threads.")

    def read(self, folder: Path) -> dict[tuple[str, str], float]:
        """Return the times by backbone and attention; `folder` is the study's.

        Raises UserError where the file is not such a list.
        """
        columns, records = read_csv(folder / self.file)
        try:
            return {
                (line["backbone"], line["attention"]): float(line["time_over_bare"])
                for _, line in records
            }
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{folder / self.file}: expected the columns backbone, attention and "
                f"time_over_bare, a number; got {','.join(columns)}."
            ) from None
