"""report.html: every table, figure and claim of a study in one file that needs no network."""

import base64
import json
import re
from contextlib import suppress
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from attention_ablation import __version__
from attention_ablation.base.io import Missing, read_bytes, write_text
from attention_ablation.evidence.complexity import MISMATCH, Counts, read_counts
from attention_ablation.report.blocks import complexity, energy_used, environment, fact, run_list
from attention_ablation.report.checklist import checklist, states
from attention_ablation.report.claims import page_claims
from attention_ablation.report.notes import confounds, table_notes
from attention_ablation.report.results import (
    DASH,
    MINUS,
    Cell,
    Results,
    difference,
    number,
    table_results,
)
from attention_ablation.report.where import run_facts, run_record
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import COUNTED, METRICS, Metric

REPORT = "report.html"
PAGE = files("attention_ablation.report") / "page"


def write_report(plan: Plan, runs: pd.DataFrame) -> None:
    """Write `report.html` from what is there; what is missing is said to be."""
    write_text(plan.folder / REPORT, rendered_report(plan, runs))


def rendered_report(plan: Plan, runs: pd.DataFrame) -> str:
    page = {name: (PAGE / f"report.{name}").read_text("utf-8") for name in ("html.j2", "css", "js")}
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    cells: dict[str, dict[str, Any]] = {}
    counts = read_counts(plan)
    energy = energy_used(runs["joules"].dropna()) if "joules" in runs else ""
    claims = page_claims(plan, runs)
    tables = [_table(plan, table, runs, counts, cells) for table in plan.tables]
    # Of validation sets and of tables, those that any run has, by their column.
    shown = {name for table in plan.tables for name in plan.study.tables[table].columns}
    measured = {
        metric.source: metric
        for name, metric in plan.study.metrics.items()
        if metric.source in runs
        and (name in shown or (name in METRICS and metric.source.startswith("validation_")))
    }
    provenance = {path: _provenance(plan, measured, path, runs.loc[path]) for path in runs.index}
    # `</script>` inside a text would end the element.
    data = json.dumps({"cells": cells, "runs": provenance}).replace("<", "\\u003c")
    return template.from_string(page["html.j2"]).render(
        study=plan.study,
        tier=plan.config.tier,
        summary=plan.summary,
        state=f"Runs: {states(runs)}.",
        energy=energy,
        limits=plan.tier.limits,
        claims=claims,
        tables=tables,
        figures=[_figure(plan, name) for name in plan.figures],
        discrepancies=[
            (name, number(found.table), found.explanation)
            for name, found in plan.study.discrepancies.items()
            if found.table in plan.tables
        ],
        unexplained="; cells that differ without an explanation are marked MISMATCH below"
        * any(count.verdict == MISMATCH for count in counts.values()),
        blocks=[complexity(plan, counts), run_list(measured, runs), environment(runs)],
        checklist=checklist(plan, runs, counts, energy),
        made_by=f"Made by attention-ablation {__version__}.",
        css=Markup(page["css"]),
        script=Markup(page["js"]),
        data=Markup(data),
    )


def _figure(plan: Plan, name: str) -> dict[str, Any]:
    entry, image = plan.study.figures[name], ""
    with suppress(Missing):
        svg = read_bytes(plan.folder / "figures" / f"{name}.svg")
        image = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    short = re.sub(r"(?<=[a-z])(?=\d)", " ", name.replace("-", " "))
    short = short[:1].upper() + short[1:]
    return {"name": name, "short": short, "entry": entry, "image": image}


def _table(
    plan: Plan, table: str, runs: pd.DataFrame, counts: Counts, cells: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return what the page shows of a table; `cells` gains the provenance of each of ours."""
    shown = {"name": table, "number": number(table), "entry": plan.study.tables[table]}
    if refused := confounds(plan, table, runs):
        reason = "Not shown: rows that are compared here were not trained alike."
        rows = [{"label": row.label, "cells": []} for row in plan.rows(table)]
        return shown | {"headings": ["Architecture"], "rows": rows, "notes": [reason, *refused]}
    results = table_results(plan, table, runs, counts)
    headings = ["Architecture"]
    for name, metric in results.columns.items():
        printed = name in results.printed
        headings += [metric.title, *["paper"] * printed]
        headings += [f"ours {MINUS} paper"] * (printed and _comparable(plan, metric))
    # The last note, the tier's limits, stands at the top of the page.
    notes = table_notes(plan, results, runs)[:-1]
    return shown | {"headings": headings, "rows": _rows(plan, results, cells), "notes": notes}


def _rows(plan: Plan, results: Results, cells: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for line in results.rows:
        record = []
        for name, metric in results.columns.items():
            cell, identifier = line.cells[name], f"{results.table} {line.row.key} {name}"
            cells[identifier] = {
                "title": f"Table {number(results.table)}, {line.row.label}: {metric.title}",
                "text": _explanation(plan, line.row.detector, cell, metric),
                "runs": [run.path for run in cell.runs],
            }
            gap, text = difference(cell) if _comparable(plan, metric) else (None, None)
            record.append((identifier, cell, name in results.printed, gap, text))
        rows.append({"label": line.row.label + line.mark, "cells": record})
    return rows


def _comparable(plan: Plan, metric: Metric) -> bool:
    """Whether ours less the paper's means something: both of one network, or of one training."""
    return metric.counted or plan.follows_paper


def _explanation(plan: Plan, detector: str | None, cell: Cell, metric: Metric) -> str:
    paper = f" The paper prints {cell.paper_text}." * plan.study.has_printed
    if cell.text == DASH:
        return f"Ours: not there yet.{paper}"
    if metric.counted:
        size = "" if detector else f", {plan.study.counted_on.size(None).text}"
        what = f"{COUNTED[metric.source]}; the full-size network{size}"
        return f"Ours: {cell.text}: {what}.{paper}"
    if cell.value is None:
        return f"Ours: {cell.text} runs, so there is no mean.{paper} The runs:"
    of = f"mean and standard deviation of {cell.n} seeds" if cell.n > 1 else "one seed"
    place = ", on the validation set" * metric.source.startswith("validation_")
    when = ", last epoch" * metric.source.startswith(("validation_", "train_"))
    return f"Ours: {cell.text}{metric.suffix}, {of}{when}{place}.{paper} The runs:"


def _provenance(
    plan: Plan, measured: dict[str, Metric], path: str, line: "pd.Series[Any]"
) -> dict[str, Any]:
    """Return what a cell's dialog shows of a run."""
    record = run_record(plan, plan.runs[path], line.to_dict())
    reason = f": {record['reason']}" if record["reason"] else ""
    outcome = [("status", record["status"] + reason)]
    for column, metric in measured.items():
        if pd.notna(line[column]):
            outcome.append((metric.heading, f"{fact(line[column])}{metric.suffix}"))
    spec = json.dumps(record["spec"], indent=2)
    return {"facts": [*outcome, *run_facts(record)], "spec": spec}
