"""What a paper's text says about its tables, as comparisons of rows: a study's claims.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from attention_ablation.base.model import Line, Model, Prose
from attention_ablation.study.metrics import SIZES

# The keys that a predicate needs, and that the others must not have.
THRESHOLDS = {
    "greater-by-about": ("by", "within", "reason"),
    "at-most-more": ("percent", "reason"),
    "not-greater": ("margin", "reason"),
    "not-less": ("margin", "reason"),
}


Predicate = Literal[
    "less", "greater", "greater-by-about", "at-most-more", "not-greater", "not-less"
]
MINUS = "\N{MINUS SIGN}"


class Comparison(Model):
    """Rows of a table, each compared with the next one, so that three or more are an order."""

    table: str
    metrics: list[str] = Field(
        min_length=1,
        description="Columns of the table, or other metrics of the study that are numbers of its "
        "runs, such as train_top1_error; each is compared.",
    )
    rows: list[str] = Field(
        min_length=2, description="Row keys; 'table2:resnet50+se' is a row of another table."
    )
    than: list[str] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="less, greater: two further rows. What is compared is then the difference of "
        "'rows', the first less the second, with the difference of these.",
    )
    predicate: Predicate = Field(
        "less",
        description="What a row is to the next one: less; greater; greater-by-about 'by', give or "
        "take 'within'; at-most-more, by 'percent'; not-greater, not-less: by more than 'margin'.",
    )
    percent: float | None = Field(None, ge=0, description="at-most-more: the most that is added.")
    by: float | None = Field(
        None, gt=0, description="greater-by-about: the difference, in the metric's unit."
    )
    within: float | None = Field(
        None, ge=0, description="greater-by-about: what rounding leaves open on either side."
    )
    margin: float | None = Field(
        None,
        gt=0,
        description="The difference, in the metric's unit, that does not count. less, greater: "
        "rows are equivalent within it, either way. A tier may have a margin of its own.",
    )
    reason: Prose | None = Field(
        None, description="Why this threshold; required where there is one."
    )

    @property
    def places(self) -> list[tuple[str, str]]:
        """The table and the key of each row."""
        return [self._place(row) for row in self.rows]

    @property
    def beside(self) -> list[tuple[str, str]]:
        """The table and the key of both rows of `than`, empty where it is not given."""
        return [self._place(row) for row in self.than or []]

    def _place(self, row: str) -> tuple[str, str]:
        first, colon, key = row.partition(":")
        return (first, key) if colon else (self.table, first)

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        needed = THRESHOLDS.get(self.predicate, ("margin", "reason") if self.margin else ())
        for key in ("percent", "by", "within", "margin", "reason"):
            given = getattr(self, key) is not None
            if given and key not in needed:
                raise ValueError(f"'{key}' has no meaning with '{self.predicate}'; remove it")
            if not given and key in needed:
                raise ValueError(f"expected '{key}' with '{self.predicate}'; add it")
        if self.than and not (self.directed and len(self.rows) == 2):
            raise ValueError("expected two 'rows' and the predicate less or greater with 'than'")
        if self.predicate == "at-most-more" and not set(self.metrics) <= set(SIZES):
            raise ValueError(
                f"expected only {' and '.join(SIZES)} with 'at-most-more', which compares exact "
                f"counts, got {', '.join(self.metrics)}"
            )
        if self.than and len({*self.places, *self.beside}) < 4:  # whose spreads add up
            raise ValueError("expected four different rows with 'than'")
        if same := [first for first, second in pairwise(self.rows) if first == second]:
            raise ValueError(f"expected two rows to compare, got '{same[0]}' twice")
        return self

    @property
    def directed(self) -> bool:
        """Whether it says that rows differ, so that they may be shown to be equivalent instead."""
        return self.predicate in ("less", "greater")

    @property
    def bounds(self) -> tuple[Decimal, Decimal]:
        """Between what a difference lies where the predicate holds; infinite where unbounded."""
        given = (self.percent, self.by, self.within, self.margin)
        percent, by, within, margin = (Decimal(str(number or 0.0)) for number in given)
        return {
            "less": (Decimal("-Infinity"), Decimal(0)),
            "greater": (Decimal(0), Decimal("Infinity")),
            "greater-by-about": (by - within, by + within),
            "at-most-more": (Decimal("-Infinity"), percent),
            "not-greater": (Decimal("-Infinity"), margin),
            "not-less": (-margin, Decimal("Infinity")),
        }[self.predicate]

    @property
    def cuts(self) -> list[float]:
        """The differences at which the predicate turns, the finite ones of its bounds."""
        return [float(bound) for bound in self.bounds if bound.is_finite()]

    def at(self, margin: float | None, unit: str | None) -> Self:
        """Return the comparison with a tier's margin, in points, in place of its own."""
        if margin is None or self.margin is None or unit != "%":
            return self
        return self.model_copy(update={"margin": margin})

    def difference(self, first: Decimal, second: Decimal, *than: Decimal) -> Decimal:
        """Return first less second, in percent of the second with at-most-more.

        Of four values it is the difference of the first two less that of the others.
        """
        difference = first - second
        if than:
            difference -= than[0] - than[1]
        return 100 * difference / second if self.predicate == "at-most-more" else difference

    def holds(self, difference: Decimal) -> bool:
        """Judge an exact difference. Equal values are neither less nor greater."""
        low, high = self.bounds
        inside = low <= difference <= high
        return inside and (self.predicate in THRESHOLDS or difference != 0)


@dataclass(frozen=True)
class Pair:
    """Two rows compared in one metric: a comparison's smallest part, a line of claims.csv."""

    comparison: Comparison
    metric: str
    first: tuple[str, str]  # table, row key
    second: tuple[str, str]

    @property
    def table(self) -> str:
        return self.comparison.table

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The rows whose values make its difference: two, or four."""
        return [self.first, self.second, *self.comparison.beside]

    @property
    def names(self) -> list[str]:
        """What `rows` are called: their keys, after the table of those of another one."""
        return [key if table == self.table else f"{table}:{key}" for table, key in self.rows]

    @property
    def text(self) -> str:
        """The comparison in words, such as 'resnet50+cbam < resnet50+se'."""
        c = self.comparison
        first, second, *than = self.names
        if than:
            first, second = f"({first} {MINUS} {second})", f"({than[0]} {MINUS} {than[1]})"
        return {
            "less": f"{first} < {second}",
            "greater": f"{first} > {second}",
            "greater-by-about": f"{first} > {second} by {c.by} ± {c.within}",
            "at-most-more": f"{first} <= {second} + {c.percent or 0:g} %",
            "not-greater": f"{first} <= {second} + {c.margin or 0:g}",
            "not-less": f"{first} >= {second} {MINUS} {c.margin or 0:g}",
        }[c.predicate]


class Claim(Model):
    """Something that a paper or the study says, its place, and the comparisons that it comes to."""

    place: Line = Field(
        description="Where a paper says it, such as 'section 4.1, Table 2', or what it is where "
        "none does, such as 'control'."
    )
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
