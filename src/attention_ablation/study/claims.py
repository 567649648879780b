"""What a paper's text says about its tables, as comparisons of rows: a study's claims.yaml."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from attention_ablation.base.errors import unknown
from attention_ablation.base.model import Line, Model, Prose
from attention_ablation.study.metrics import COUNTS

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

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        needs = {
            "percent": ("at-most-more",),
            "by": ("greater-by-about",),
            "within": ("greater-by-about",),
            "reason": ("at-most-more", "greater-by-about"),
        }
        for key, predicates in needs.items():
            given = getattr(self, key) is not None
            if given and self.predicate not in predicates:
                raise ValueError(f"'{key}' has no meaning with '{self.predicate}'; remove it")
            if not given and self.predicate in predicates:
                raise ValueError(f"expected '{key}' with '{self.predicate}'; add it")
        if self.predicate == "at-most-more" and not set(self.metrics) <= set(COUNTS):
            raise ValueError(
                f"expected only {' and '.join(COUNTS)} with 'at-most-more', which compares exact "
                f"counts, got {', '.join(self.metrics)}"
            )
        for first, second in zip(self.rows, self.rows[1:], strict=False):
            if first == second:
                raise ValueError(f"expected two rows to compare, got '{first}' twice")
        return self

    @property
    def bounds(self) -> tuple[Decimal, Decimal]:
        """Between what a difference lies where the predicate holds; infinite where unbounded.

        It is the first row's value less the second's, in percent of the second with at-most-more.
        """
        infinity = Decimal("Infinity")
        if self.predicate == "less":
            return -infinity, Decimal(0)
        if self.predicate == "greater":
            return Decimal(0), infinity
        if self.predicate == "at-most-more":
            return -infinity, Decimal(str(self.percent))
        by, within = Decimal(str(self.by)), Decimal(str(self.within))
        return by - within, by + within

    def difference(self, first: Decimal, second: Decimal) -> Decimal:
        """Return the difference that the predicate is about."""
        if self.predicate == "at-most-more":
            return 100 * (first - second) / second
        return first - second

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
            rows = [split_row(comparison.table, row) for row in comparison.rows]
            for metric in comparison.metrics:
                for first, second in pairwise(rows):
                    yield Pair(comparison, metric, first, second)


class ClaimsFile(Model):
    """A paper's claims by their keys: claims.yaml, optional in a study."""

    claims: dict[Line, Claim] = Field(min_length=1)


def split_row(table: str, row: str) -> tuple[str, str]:
    """Return the table and the key of a row that may name another table than `table`."""
    other, colon, key = row.partition(":")
    return (other, key) if colon else (table, row)


def check_claims(
    claims: Mapping[str, Claim],
    columns: Mapping[str, Sequence[str]],
    rows: Mapping[str, Sequence[str]],
    where: object,
) -> None:
    """Check every table, row and metric that claims mention.

    Args:
        columns: metrics of the study's tables.
        rows: row keys of the study's tables.
        where: the file, for messages.

    Raises UserError.
    """
    for name, claim in claims.items():
        for number, comparison in enumerate(claim.comparisons):
            _check(comparison, columns, rows, f"{where}: claims.{name}.comparisons.{number}")


def _check(
    comparison: Comparison,
    columns: Mapping[str, Sequence[str]],
    rows: Mapping[str, Sequence[str]],
    where: str,
) -> None:
    for row in comparison.rows:
        table, key = split_row(comparison.table, row)
        if table not in columns:
            raise unknown("table", table, columns, where)
        if key not in rows[table]:
            raise unknown("row", key, rows[table], f"{where}: {table}")
        for metric in comparison.metrics:
            if metric not in (valid := [*columns[table], *RUN_METRICS]):
                raise unknown("metric", metric, valid, f"{where}: {table}")


def cuts(comparison: Comparison) -> list[float]:
    """Return the differences at which the predicate turns, the finite ones of its bounds."""
    return [float(bound) for bound in comparison.bounds if math.isfinite(bound)]
