"""A plan's cost as text: device-hours by table, wall time, disk, money, and where it comes from."""

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from tabulate import tabulate

from attention_ablation.cost.cost import Cost


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
    hours, left = sum(cost.run_hours.values()), sum(cost.left_hours.values())
    at_least, known = ("at least ", " whose rate is known") if cost.unknown else ("", "")

    def line(heading: str, text: Callable[[float], str], whole: float, rest: float) -> str:
        aside = f" ({text(rest)} left)" if left < hours else ""
        return f"{heading}: {at_least}{text(whole)}{aside}."

    each = f"Wall time on {devices} device{'s' * (devices > 1)}, one run on each"
    wall = line(each, _time, cost.makespan(devices), cost.makespan(devices, left=True))
    longest = f" The longest run{known} takes {_time(max(cost.run_hours.values()))}."
    lines = [plan.summary, "", _tables(cost), "", line(unit, _number, hours, left), wall + longest]
    if price is not None:
        heading = f"Cost at {price:g} for each of the {unit}"
        lines.append(line(heading, "{:,.0f}".format, hours * price, left * price))
    if params is not None:
        # Two checkpoints of weights and momentum, and a third while it is written.
        under_way = 3 * 8 * sum(sorted(params.values())[-devices:])
        lines.append(
            f"Disk, without data sets: {_bytes(4 * sum(params.values()))} of weights in the end, "
            f"and up to {_bytes(under_way)} of checkpoints of the runs under way."
        )
    lines += ["", f"Estimated for: {cost.rates.title}."]
    fill = textwrap.TextWrapper(100, subsequent_indent="  ", break_on_hyphens=False).fill
    if cost.unknown:
        named = ", ".join(dict.fromkeys(path.rpartition("_")[0] for path in cost.unknown))
        missing = f"no rate is known of {len(cost.unknown)} runs, or they did not fit: {named}."
        lines.append(fill(f"- {missing}"))
    if sources := cost.rates.sources([run.spec for run in plan.runs.values()]):
        lines += [fill(f"- {source}") for source in sources]
        lines.append(
            "To measure here instead: .venv/bin/attention-ablation plan "
            f"--tier {plan.config.tier} --calibrate"
        )
    return "\n".join(lines)


def over_budget(cost: Cost) -> str | None:
    """Return why a plan must not be started, None where it may: see config.yaml, `budget`."""
    budget, left = cost.plan.config.budget, sum(cost.left_hours.values())
    if budget is None:
        return None
    if cost.unknown:
        return (
            f"a budget is set and the rate of {len(cost.unknown)} runs is not known. Measure them "
            "with plan --calibrate, or choose other hardware."
        )
    if left <= budget:
        return None
    return (
        f"the runs that are left need {_number(left)} {cost.rates.unit}, the budget in config.yaml "
        f"is {budget:g}. Raise it, or choose fewer tables or seeds."
    )


def _tables(cost: Cost) -> str:
    plan, unit = cost.plan, cost.rates.unit
    seen: set[str] = set()
    records: list[list[object]] = []
    for table in plan.tables:
        paths = {run.path for run in plan.table_runs(table)}
        new = paths - seen
        seen |= paths
        counts = len(plan.rows(table)), len(paths), len(paths - new)
        records.append([table, *counts, _hours(cost, paths), _hours(cost, new)])
    # The runs that only give others their weights are in no table, but in the plan.
    whole = _hours(cost, set(plan.runs))
    records.append(["all", len(plan.specs), len(plan.runs), "", "", whole])
    headings = ["table", "rows", "runs", "shared with above", f"{unit} alone", f"{unit} to add"]
    return _aligned(records, headings, ["left"] + ["right"] * 5)


def describe_runs(cost: Cost) -> str:
    """Return a line for every run: its folder, hours, and the rows that show it."""
    rows: dict[str, list[str]] = {}
    for table, key in cost.plan.specs:
        for run in cost.plan.row_runs(table, key):
            rows.setdefault(run.path, []).append(f"{table}:{key}")
    records = [
        [path, _hours(cost, {path}), " ".join(rows.get(path, ["what others start from"]))]
        for path in cost.plan.runs
    ]
    return _aligned(records, ["run", cost.rates.unit, "rows"], ["left", "right", "left"])


def _aligned(records: Any, headings: list[str], align: list[str]) -> str:
    return str(tabulate(records, headings, disable_numparse=True, colalign=align))


def _hours(cost: Cost, paths: set[str]) -> str:
    """Return the device-hours of some runs, of which not all may be known."""
    unknown = paths.intersection(cost.unknown)
    if unknown and unknown == paths:
        return "not known"
    return ("at least " if unknown else "") + _number(sum(cost.run_hours[path] for path in paths))


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
