"""What a figure is. Each kind of figure is one file in `figures`, where it is found by its name.

Planning imports these files: they import pandas, matplotlib and torch inside functions only.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from attention_ablation.base.model import Line, Model, Names
from attention_ablation.base.registry import any_of

if TYPE_CHECKING:
    from attention_ablation.study.config import Row, Study
    from attention_ablation.study.expand import Plan


class Figure(Model):
    """A figure of study.yaml. One of another kind gives `kind` a Literal, `shown` and `write`.

    run_file: what it reads in the folder of each run that it shows.
    numbers: for a figure that has a CSV, what that says of the figure '{name}'; else ''.
    of_claims: whether it stands with the claims on the page, not with the figures.
    """

    run_file: ClassVar[str] = "history.csv"
    numbers: ClassVar[str] = ""
    of_claims: ClassVar[bool] = False

    kind: str
    title: Line
    section: Line | None = Field(None, description="Where the paper has it.")

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        """The tables that must be selected for it, each with the keys of the rows it shows."""
        raise NotImplementedError

    def compared(self, plan: "Plan") -> list[tuple[str, list["Row"]]]:
        """Return rows that must have equal recipes, each with the title of the part they are in."""
        return []

    def check(self, study: "Study", where: str) -> None:
        """Raise UserError where it does not fit the study, in which its tables and rows are."""

    def inputs(self, plan: "Plan") -> list[str]:
        """Return the files that it is drawn from, beside the study's and the tier's own."""
        rows = [(table, key) for table, keys in self.shown for key in keys]
        runs = [run for row in rows for run in plan.row_runs(*row)]
        return sorted({f"{plan.runs_folder}/{run.path}/{self.run_file}" for run in runs})

    def heading(self, name: str) -> str:
        """Return its title, with the number that its name has in the paper."""
        number = name.removeprefix("figure")
        return f"Figure {number}. {self.title}" if number.isdigit() else self.title

    def csv(self, plan: "Plan") -> str:
        """Return the text of its CSV; of a figure that has `numbers`."""
        raise NotImplementedError

    def write(self, plan: "Plan", name: str) -> None:
        """Write `figures/<name>.svg`, `.png` and, where it has `numbers`, `.csv`."""
        raise NotImplementedError


class RowsFigure(Figure):
    """A figure that shows rows of one table, a line for each."""

    table: str
    rows: Names

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        return [(self.table, self.rows)]


def any_figure() -> Any:
    """Return the type of every kind of figure, which its `kind` tells apart."""
    return any_of("attention_ablation.figures", Figure, "kind")
