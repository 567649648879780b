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
from attention_ablation.evidence.complexity import Counts, read_counts
from attention_ablation.report.claims import page_claims
from attention_ablation.report.comparable import confounds
from attention_ablation.report.html_lists import complexity, environment, run_list, run_provenance
from attention_ablation.report.notes import table_notes
from attention_ablation.report.results import (
    DASH,
    MINUS,
    Cell,
    Results,
    number,
    table_results,
)
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import Metric

REPORT = "report.html"
PAGE = files("attention_ablation.report") / "page"
COUNTED = {
    "params_m": "parameters in millions",
    "gflops": "multiply-accumulates of convolutions and linear layers, in 1e9",
}


def write_report(plan: Plan, runs: pd.DataFrame) -> None:
    """Write `report.html` from what is there; what is missing is said to be."""
    write_text(plan.folder / REPORT, rendered_report(plan, runs))


def rendered_report(plan: Plan, runs: pd.DataFrame) -> str:
    """Return the text of `report.html`."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (PAGE / "report.html.j2").read_text("utf-8")
    )
    cells: dict[str, dict[str, Any]] = {}
    counts, sizes = runs["status"].value_counts(), read_counts(plan)
    claims, tables = (
        page_claims(plan, runs),
        [_table(plan, t, runs, sizes, cells) for t in plan.tables],
    )
    provenance = {path: run_provenance(plan, runs, path) for path in runs.index}
    # `</script>` inside a text would end the element.
    data = json.dumps({"cells": cells, "runs": provenance}).replace("<", "\\u003c")
    return template.render(
        study=plan.study,
        tier=plan.config.tier,
        summary=plan.summary,
        state="Runs: " + ", ".join(f"{n} {status}" for status, n in counts.items()) + ".",
        limits=plan.tier.limits,
        claims=claims,
        tables=tables,
        figures=[_figure(plan, name) for name in plan.figures],
        discrepancies=[
            {"name": name, "number": number(d.table), "explanation": d.explanation}
            for name, d in plan.study.discrepancies.items()
            if d.table in plan.tables
        ],
        blocks=[complexity(plan, sizes), run_list(plan, runs), environment(runs)],
        made_by=f"Made by attention-ablation {__version__}.",
        css=Markup((PAGE / "report.css").read_text("utf-8")),
        script=Markup((PAGE / "report.js").read_text("utf-8")),
        data=Markup(data),
    )


def _figure(plan: Plan, name: str) -> dict[str, Any]:
    entry, image = plan.study.figures[name], ""
    with suppress(Missing):
        svg = read_bytes(plan.folder / "figures" / f"{name}.svg")
        image = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    short = re.sub(r"(?<=[a-z])(?=\d)", " ", name.replace("-", " ")).capitalize()
    return {"name": name, "short": short, "heading": entry.heading(name), "title": entry.title,
            "section": entry.section, "image": image}  # fmt: skip


def _table(
    plan: Plan,
    table: str,
    runs: pd.DataFrame,
    counts: Counts,
    cells: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return what the page shows of a table; `cells` gains the provenance of each of ours."""
    entry = plan.study.tables[table]
    shown = {"name": table, "number": number(table), "title": entry.title,
             "section": entry.section}  # fmt: skip
    if refused := confounds(plan, table, runs):
        reason = "Not shown: rows that are compared here were not trained alike."
        rows = [{"label": row.label, "cells": []} for row in plan.rows(table)]
        return shown | {"headings": ["Architecture"], "rows": rows, "notes": [reason, *refused]}
    results = table_results(plan, table, runs, counts)
    headings = ["Architecture"]
    for metric in results.columns.values():
        headings += [metric.title, "paper", f"ours {MINUS} paper"]
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
            printed = None if cell.paper is None else float(cell.paper)
            gap, difference = _difference(cell)
            record += [
                _td("ours", cell.text, cell.value, best=cell.best) | {"id": identifier},
                _td("paper", (cell.paper or DASH) + cell.mark, printed, best=cell.best_paper),
                _td("difference", difference, gap),
            ]
        rows.append({"label": line.row.label + line.mark, "cells": record})
    return rows


def _td(kind: str, text: str, value: float | None, *, best: bool = False) -> dict[str, Any]:
    return {"kind": kind, "text": text, "value": "" if value is None else value, "best": best}


def _difference(cell: Cell) -> tuple[float | None, str]:
    """Return ours less the paper's, and its text."""
    if cell.value is None or cell.paper is None:
        return None, DASH
    # Of what both show, so that cells that agree differ by 0.
    digits = min(cell.digits, len(cell.paper.partition(".")[2]))
    gap = round(cell.value, digits) - float(cell.paper)
    text = f"{abs(gap):.{digits}f}"
    return gap, text if not float(text) else ("+" if gap > 0 else MINUS) + text


def _explanation(plan: Plan, detector: str | None, cell: Cell, metric: Metric) -> str:
    paper = f"The paper prints {cell.paper}." if cell.paper else "The paper prints none."
    if cell.text == DASH:
        return f"Ours: not there yet. {paper}"
    if metric.counted:
        size = "" if detector else f", {plan.study.counted_on.size(None).text}"
        what = f"{COUNTED[metric.source]}; the full-size network{size}"
        return f"Ours: {cell.text}: {what}. {paper}"
    if cell.value is None:
        return f"Ours: {cell.text} runs, so there is no mean. {paper} The runs:"
    of = f"mean and standard deviation of {cell.n} seeds" if cell.n > 1 else "one seed"
    place = ", on the validation set" * metric.source.startswith("validation_")
    when = ", last epoch" * metric.source.startswith(("validation_", "train_"))
    return f"Ours: {cell.text}{metric.suffix}, {of}{when}{place}. {paper} The runs:"
