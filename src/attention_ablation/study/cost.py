"""What a plan costs before it is started: device-hours, days, disk and money."""

import heapq
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tabulate import tabulate

from attention_ablation.study.expand import Plan, relative_cost
from attention_ablation.study.runs import read_outcome, steps_saved
from attention_ablation.study.spec import Spec
from attention_ablation.study.throughput import PublishedRates, Rates, choose_rates

# A forward pass is a third of a step: the backward pass has two products for its one.
EVALUATION_SHARE = 1 / 3
# A job's limits, over what is estimated for it.
TIME_MARGIN, TIME_EXTRA_MINUTES = 1.5, 30
MEMORY_MARGIN, LEAST_MEMORY_MB = 1.5, 4000


@dataclass(frozen=True)
class Cost:
    """A plan and how fast its networks train."""

    plan: Plan
    rates: Rates

    def hours(self, spec: Spec) -> float | None:
        """Return the device-hours of a training, None where its rate is not known."""
        rate = self.rates.images_per_second(spec)
        if rate is None:
            return None
        dataset = spec.recipe.dataset
        images = dataset.train_images + EVALUATION_SHARE * dataset.validation_images
        return spec.recipe.epochs * images / rate / 3600

    def minutes(self, spec: Spec) -> int:
        """Return a time limit for a training's job."""
        return math.ceil(60 * TIME_MARGIN * (self.hours(spec) or 0)) + TIME_EXTRA_MINUTES

    @property
    def memory_mb(self) -> int:
        """A memory limit for a training's job, MB of host memory."""
        return max(LEAST_MEMORY_MB, math.ceil(MEMORY_MARGIN * self.rates.memory_mb))

    @cached_property
    def run_hours(self) -> dict[str, float]:
        """The device-hours of every run, by folder; 0 where they are not known."""
        return {path: self.hours(run.spec) or 0.0 for path, run in self.plan.runs.items()}

    @cached_property
    def left_hours(self) -> dict[str, float]:
        """The device-hours that every run still needs: none where it ended."""
        left = {}
        for path, run in self.plan.runs.items():
            folder = self.plan.runs_folder / path
            ended = read_outcome(folder)["status"] in ("completed", "diverged")
            done = 1.0 if ended else steps_saved(folder) / run.spec.recipe.steps
            left[path] = self.run_hours[path] * max(0.0, 1 - done)
        return left

    @property
    def unknown(self) -> list[str]:
        """The runs whose rate is not known."""
        return [path for path, run in self.plan.runs.items() if self.hours(run.spec) is None]

    def makespan(self, devices: int, left: bool = False) -> float:
        """Return the hours until the last run ends, started in the workflow's order."""
        hours = self.left_hours if left else self.run_hours
        busy = [0.0] * devices
        for run in sorted(self.plan.runs.values(), key=lambda run: -relative_cost(run.spec)):
            heapq.heappush(busy, heapq.heappop(busy) + hours[run.path])
        return max(busy)


def load_cost(plan: Plan) -> Cost:
    """Return the cost of a plan by the rates that its config chooses."""
    specs = list(plan.specs.values())
    return Cost(plan, choose_rates(plan.config.hardware, plan.calibration_folder, specs, plan.root))


def describe(
    cost: Cost,
    devices: int = 1,
    price: float | None = None,
    params: Mapping[str, int] | None = None,
) -> str:
    """Return the plan as text: tables, totals, wall time, disk, money, and where figures are from.

    Args:
        cost: the plan with its rates.
        devices: how many runs go on at a time, each on one device.
        price: of a device-hour.
        params: parameters of every run's network, by run folder; None leaves the disk out.
    """
    plan, unit = cost.plan, cost.rates.unit
    lines = [plan.summary, "", _tables(cost), ""]
    total, left = sum(cost.run_hours.values()), sum(cost.left_hours.values())
    started = left < total
    at_least = "at least " if cost.unknown else ""
    lines.append(f"{unit}: {at_least}{_number(total)}" + _left(started, _number(left)))
    each = f"on {devices} device{'s' * (devices > 1)}, one run on each"
    wall, wall_left = cost.makespan(devices), cost.makespan(devices, left=True)
    lines.append(
        f"Wall time {each}: {at_least}{_time(wall)}{_left(started, _time(wall_left))} "
        f"The longest run takes {_time(max(cost.run_hours.values()))}."
    )
    if price is not None:
        lines.append(
            f"Cost at {price:g} a device-hour: {at_least}{total * price:,.0f}"
            + _left(started, f"{left * price:,.0f}")
        )
    if params is not None:
        weights = 4 * sum(params.values())
        # Two checkpoints of weights and momentum, and a third while it is written.
        under_way = 3 * 8 * sum(sorted(params.values())[-devices:])
        lines.append(
            f"Disk, without data sets: {_bytes(weights)} of weights in the end, and up to "
            f"{_bytes(under_way)} of checkpoints on the way."
        )
    lines += ["", f"Estimated for: {cost.rates.title}."]
    for path in cost.unknown:
        lines.append(f"- {path}: no rate is known, or it did not fit the device.")
    if isinstance(cost.rates, PublishedRates):
        sources = cost.rates.sources([run.spec for run in plan.runs.values()])
        lines += [textwrap.fill(f"- {line}", 100, subsequent_indent="  ") for line in sources]
        lines.append("To measure here instead: attention-ablation plan --calibrate")
    return "\n".join(lines)


def over_budget(cost: Cost) -> str | None:
    """Return why a plan must not be started, None where it may: see config.yaml, `budget`."""
    budget, left = cost.plan.config.budget, sum(cost.left_hours.values())
    if budget is None or (left <= budget and not cost.unknown):
        return None
    amount = f"{_number(left)} {cost.rates.unit}" + " and more" * bool(cost.unknown)
    return (
        f"the runs that are left need {amount}, the budget in config.yaml is {budget:g}. Raise it, "
        "or choose fewer tables or seeds."
    )


def _tables(cost: Cost) -> str:
    seen: set[str] = set()
    records: list[list[str]] = []
    for table in cost.plan.tables:
        paths = {run.path for run in cost.plan.table_runs(table)}
        new = paths - seen
        seen |= paths
        hours = [sum(cost.run_hours[path] for path in some) for some in (paths, new)]
        counts = len(cost.plan.rows(table)), len(paths), len(paths - new)
        records.append([table, *map(str, counts), *map(_number, hours)])
    whole = _number(sum(cost.run_hours.values()))
    records.append(["all", str(len(cost.plan.specs)), str(len(seen)), "", "", whole])
    unit = cost.rates.unit
    headings = ["table", "rows", "runs", "shared with above", f"{unit} alone", f"{unit} to add"]
    return _aligned(records, headings, ["left"] + ["right"] * 5)


def describe_runs(cost: Cost) -> str:
    """Return a line for every run: its folder, hours, and the rows that show it."""
    rows: dict[str, list[str]] = {}
    for table, key in cost.plan.specs:
        for run in cost.plan.row_runs(table, key):
            rows.setdefault(run.path, []).append(f"{table}:{key}")
    records = [[path, _number(cost.run_hours[path]), " ".join(of)] for path, of in rows.items()]
    headings = ["run", cost.rates.unit, "rows"]
    return _aligned(records, headings, ["left", "right", "left"])


def _aligned(records: list[list[str]], headings: list[str], align: list[str]) -> str:
    text: str = tabulate(records, headings, disable_numparse=True, colalign=align)
    return text


def _left(started: bool, text: str) -> str:
    return f" ({text} left)." if started else "."


def _number(hours: float) -> str:
    if hours >= 10:
        return f"{hours:,.0f}"
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"


def _time(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
