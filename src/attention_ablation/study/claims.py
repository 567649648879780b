"""What a paper's text says about its tables, as comparisons of rows: a study's claims.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from attention_ablation.base.errors import unknown
from attention_ablation.base.model import Line, Model, Prose
from attention_ablation.study.metrics import COUNTS

if TYPE_CHECKING:
    from attention_ablation.study.config import Study

# Numbers of a run that no table shows, under the names that they have in runs.csv.
RUN_METRICS = ("train_top1_error", "gradcam_energy_in_box", "gradcam_target_probability")

Predicate = Literal["less", "greater", "greater-by-about", "at-most-more"]


class Comparison(Model):
    """Rows of a table, each compared with the next one, so that three or more are an order."""

    table: str
    metrics: list[str] = Field(
        min_length=1,
        description="Columns of the table, or train_top1_error, gradcam_energy_in_box, "
        "gradcam_target_probability; each is compared.",
    )
    rows: list[str] = Field(
        min_length=2, description="Row keys; 'table2:resnet50+se' is a row of another table."
    )
    predicate: Predicate = Field(
        "less",
        description="What a row is to the next one: less; greater; greater-by-about 'by', give or "
        "take 'within'; at-most-more, by 'percent'.",
    )
    percent: float | None = Field(None, ge=0, description="at-most-more: the most that is added.")
    by: float | None = Field(
        None, gt=0, description="greater-by-about: the difference, in the metric's unit."
    )
    within: float | None = Field(
        None, ge=0, description="greater-by-about: what rounding leaves open on either side."
    )
    reason: Prose | None = Field(
        None, description="Why this threshold; required where there is one."
    )

    @property
    def places(self) -> list[tuple[str, str]]:
        """The table and the key of each row."""
        parts = [row.partition(":") for row in self.rows]
        return [(first, key) if colon else (self.table, first) for first, colon, key in parts]

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        needed = {
            "at-most-more": {"percent", "reason"},
            "greater-by-about": {"by", "within", "reason"},
        }.get(self.predicate, set())
        for key in ("percent", "by", "within", "reason"):
            given = getattr(self, key) is not None
            if given and key not in needed:
                raise ValueError(f"'{key}' has no meaning with '{self.predicate}'; remove it")
            if not given and key in needed:
                raise ValueError(f"expected '{key}' with '{self.predicate}'; add it")
        if self.predicate == "at-most-more" and not set(self.metrics) <= set(COUNTS):
            raise ValueError(
                f"expected only {' and '.join(COUNTS)} with 'at-most-more', which compares exact "
                f"counts, got {', '.join(self.metrics)}"
            )
        for first, second in pairwise(self.rows):
            if first == second:
                raise ValueError(f"expected two rows to compare, got '{first}' twice")
        return self

    @property
    def bounds(self) -> tuple[Decimal, Decimal]:
        """Between what a difference lies where the predicate holds; infinite where unbounded."""
        infinity = Decimal("Infinity")
        if self.predicate == "less":
            return -infinity, Decimal(0)
        if self.predicate == "greater":
            return Decimal(0), infinity
        if self.predicate == "at-most-more":
            return -infinity, Decimal(str(self.percent))
        by, within = Decimal(str(self.by)), Decimal(str(self.within))
        return by - within, by + within

    @property
    def cuts(self) -> list[float]:
        """The differences at which the predicate turns, the finite ones of its bounds."""
        return [float(bound) for bound in self.bounds if bound.is_finite()]

    def difference(self, first: Decimal, second: Decimal) -> Decimal:
        """Return first less second, in percent of the second with at-most-more."""
        difference = first - second
        return 100 * difference / second if self.predicate == "at-most-more" else difference

    def holds(self, difference: Decimal) -> bool:
        """Judge an exact difference. Equal values are neither less nor greater."""
        low, high = self.bounds
        if self.predicate in ("less", "greater"):
            return low < difference < high
        return low <= difference <= high


@dataclass(frozen=True)
class Pair:
    """Two rows compared in one metric: a comparison's smallest part, a line of claims.csv."""

    comparison: Comparison
    metric: str
    first: tuple[str, str]  # table, row key
    second: tuple[str, str]

    @property
    def table(self) -> str:
        """The table that the comparison belongs to."""
        return self.comparison.table

    @property
    def text(self) -> str:
        """The comparison in words, such as 'resnet50+cbam < resnet50+se'."""
        first, second = (
            key if table == self.table else f"{table}:{key}"
            for table, key in (self.first, self.second)
        )
        c = self.comparison
        return {
            "less": f"{first} < {second}",
            "greater": f"{first} > {second}",
            "greater-by-about": f"{first} > {second} by {c.by} ± {c.within}",
            "at-most-more": f"{first} <= {second} + {c.percent or 0:g} %",
        }[c.predicate]


class Claim(Model):
    """Something that the paper says, with its place, and the comparisons that it comes to."""

    place: Line = Field(description="Where the paper says it, such as 'section 4.1, Table 2'.")
    says: Prose = Field(description="What it says, in other words than the paper's.")
    comparisons: list[Comparison] = Field(min_length=1)

    def pairs(self) -> Iterator[Pair]:
        """Yield the claim's comparisons, two rows and a metric at a time."""
        for comparison in self.comparisons:
            for metric in comparison.metrics:
                for first, second in pairwise(comparison.places):
                    yield Pair(comparison, metric, first, second)


class ClaimsFile(Model):
    """A paper's claims by their keys: claims.yaml, optional in a study."""

    claims: dict[Line, Claim] = Field(min_length=1)


def check_claims(study: "Study", where: object) -> None:
    """Raise UserError for a table, row or metric that the study's claims name and it has not.

    `where` is the file, for messages.
    """
    for name, claim in study.claims.items():
        for number, comparison in enumerate(claim.comparisons):
            place = f"{where}: claims.{name}.comparisons.{number}"
            for table, key in comparison.places:
                if table not in study.tables:
                    raise unknown("table", table, study.tables, place)
                keys = [row.key for row in study.table_rows(table)]
                if key not in keys:
                    raise unknown("row", key, keys, f"{place}: {table}")
                columns = study.tables[table].columns
                others = [n for n, m in study.metrics.items() if not m.counted]
                valid = list(dict.fromkeys([*columns, *others]))
                for metric in comparison.metrics:
                    if metric not in valid:
                        raise unknown("metric", metric, valid, f"{place}: {table}")
