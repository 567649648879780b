"""A table's results: one record for each cell, which every format only writes."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import pandas as pd

from attention_ablation.evidence.complexity import MISMATCH, Counted, Counts
from attention_ablation.evidence.statistics import Contest, prediction_interval
from attention_ablation.report.best import best_printed, contested, values_of
from attention_ablation.spec.spec import Run
from attention_ablation.study.config import Row
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import Metric

DASH, MINUS = "-", "\N{MINUS SIGN}"
MISMATCHED = "≠"
OUTSIDE = "∉"  # printed, and not what one further run of ours would give
# Of cells with a named discrepancy: other signs than those of footnotes.
MARKS = [mark * repeat for repeat in (1, 2, 3) for mark in "†‡§¶"]
# What a CSV has of every table, shown or not.
CLASSIFICATION = ("params_m", "gflops", "top1_error", "top5_error")
DETECTION = ("params_m",)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Our number and the paper's, of a row in a metric.

    value: the count, or the mean over the n completed runs; None where there is none, or a run
    diverged. spread: the sample standard deviation. text: of ours, as every format shows it.
    paper: as printed. mark: behind the paper's number. runs: one for each seed, none of a count.
    prediction: 95 % interval of one further run, where the tier follows the paper's protocol and
    there are two runs or more. paper_inside: whether a number that rounds to the paper's is in it.
    """

    value: float | None
    spread: float | None
    text: str
    n: int
    paper: str | None
    mark: str
    best: bool
    best_paper: bool
    digits: int
    runs: list[Run]
    prediction: tuple[float, float] | None
    paper_inside: bool | None

    @property
    def prediction_text(self) -> str:
        """The interval with as many digits as it takes to tell the paper's value from its ends."""
        digits = max(self.digits, _decimals(self.paper or ""))
        return " to ".join(f"{end:.{digits}f}" for end in self.prediction or ())

    @property
    def paper_text(self) -> str:
        """What the paper prints, and whether one further run of ours would give it."""
        if self.paper is None or self.paper_inside is None:
            return self.paper or "none"
        place = "inside" if self.paper_inside else "outside"
        interval = f"95 % prediction interval for one further run, {self.prediction_text}"
        return f"{self.paper}, {place} our {interval}"


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A row with its cells by metric; `n` of its runs are completed, `mark` is its label's."""

    row: Row
    n: int
    mark: str
    cells: dict[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Results:
    """A table: its rows, the metrics that it shows, and who contests each metric's best cell.

    printed: the metrics of which a paper's values stand in a column beside ours.
    """

    table: str
    printed: set[str]
    rows: list[ResultRow]
    columns: dict[str, Metric]
    contests: dict[str, list[Contest]]

    def texts(self, form: Callable[[str, bool, str], str]) -> list[list[str]]:
        """Return each row's label, our cells and, where any is printed, the paper's.

        `form` writes a text, given whether it is the best, and the mark behind it.
        """
        rows = []
        for line in self.rows:
            row = [form(line.row.label, False, line.mark)]
            for name in self.columns:
                cell = line.cells[name]
                row.append(form(cell.text, cell.best, ""))
                if name in self.printed:
                    row.append(form(cell.paper or DASH, cell.best_paper, cell.mark))
            rows.append(row)
        return rows


def number(table: str) -> str:
    """Return what stands behind 'Table': the number in the table's name, else all of the name."""
    return re.sub(r"^table(?=\d)", "", table)


def table_results(plan: Plan, table: str, runs: pd.DataFrame, counts: Counts) -> Results:
    """Return a table's results, of what `collect` and `read_counts` returned."""
    metrics = plan.study.metrics
    columns = {name: metrics[name] for name in plan.study.tables[table].columns}
    outcomes = {
        row.key: runs.loc[[run.path for run in plan.row_runs(table, row.key)]]
        for row in plan.rows(table)
    }
    contests = {
        name: list(contested(plan, table, metric, outcomes))
        for name, metric in columns.items()
        if not metric.counted
    }
    best = {(name, c.first) for name in contests for c in contests[name] if c.resolved}
    best_paper = {(name, key) for name in contests for key in best_printed(plan, table, name)}
    signs = discrepancies(plan, table)
    always = DETECTION if any(row.detector for row in plan.rows(table)) else CLASSIFICATION
    rows = []
    for row in plan.rows(table):
        done = outcomes[row.key][outcomes[row.key]["status"] == "completed"]
        count = counts.get((table, row.key))
        cells = {}
        for name in (name for name in metrics if name in columns or name in always):
            metric = metrics[name]
            digits = shown_digits(plan, table, row.key, metric)
            value, spread, text = _ours(metric, digits, outcomes[row.key], count)
            paper = row.printed.get(name)
            prediction = inside = None
            if plan.follows_paper and not metric.counted and value is not None:
                prediction = prediction_interval(values_of(done, metric).dropna())
            if prediction and paper:
                inside = rounds_into(prediction, paper)
            named = "".join(signs.get(d, "") for d in plan.study.explaining(row, name)[-1:])
            cells[name] = Cell(
                value=value,
                spread=spread,
                text=text,
                n=0 if metric.counted else len(done),
                paper=paper,
                mark=named + f" {OUTSIDE}" * (inside is False),
                best=(name, row.key) in best,
                best_paper=(name, row.key) in best_paper,
                digits=digits,
                runs=[] if metric.counted else plan.row_runs(table, row.key),
                prediction=prediction,
                paper_inside=inside,
            )
        mark = f" {MISMATCHED}" if count and count.verdict == MISMATCH else ""
        rows.append(ResultRow(row=row, n=len(done), mark=mark, cells=cells))
    printed = {name for name in columns for row in plan.rows(table) if name in row.printed}
    return Results(table=table, printed=printed, rows=rows, columns=columns, contests=contests)


def shown_digits(plan: Plan, table: str, key: str, metric: Metric) -> int:
    """Return how many digits behind the point a row's numbers are shown with."""
    if metric.digits is not None:
        return metric.digits
    # An error of n images has steps of 100/n percent: no digit below that.
    return 2 if plan.specs[table, key].recipe.dataset.validation_images >= 10_000 else 1


def written(value: float | Decimal, form: str, sign: str = "-") -> str:
    """Return a number as `form` says, with a true minus sign and no negative zero."""
    return f"{value:{sign}z{form}}".replace("-", MINUS)


def rounds_into(interval: tuple[float, float], printed: str) -> bool:
    """Whether a number that rounds to a printed one lies in an interval."""
    half = 0.5 * 10.0 ** -_decimals(printed)
    return interval[0] <= float(printed) + half and float(printed) - half <= interval[1]


def difference(cell: Cell) -> tuple[float | None, str]:
    """Return ours less the paper's, and its text."""
    if cell.value is None or cell.paper is None:
        return None, DASH
    # Of what both show, so that cells that agree differ by 0.
    digits = min(cell.digits, _decimals(cell.paper))
    gap = round(cell.value, digits) - float(cell.paper)
    text = f"{abs(gap):.{digits}f}"
    return gap, text if not float(text) else ("+" if gap > 0 else MINUS) + text


def _decimals(printed: str) -> int:
    return len(printed.partition(".")[2])


def discrepancies(plan: Plan, table: str) -> dict[str, str]:
    """Return a table's named discrepancies and their marks."""
    names = [name for name, d in plan.study.discrepancies.items() if d.table == table]
    return dict(zip(names, MARKS, strict=False))


def _ours(
    metric: Metric, digits: int, outcomes: pd.DataFrame, count: Counted | None
) -> tuple[float | None, float | None, str]:
    """Return value, spread and text of a cell."""
    if metric.counted:
        value = count.values[metric.source] if count else None
        return value, None, DASH if value is None else f"{value:.{digits}f}"
    if diverged := int((outcomes["status"] == "diverged").sum()):
        return None, None, f"diverged {diverged}/{len(outcomes)}"
    values = values_of(outcomes[outcomes["status"] == "completed"], metric)
    mean, spread = (round(float(x), max(4, digits)) for x in (values.mean(), values.std()))
    if math.isnan(mean):
        return None, None, DASH
    if math.isnan(spread):
        return mean, None, f"{mean:.{digits}f}"
    return mean, spread, f"{mean:.{digits}f} ± {spread:.{digits}f}"
