"""What the report page shows of a table: ours, the paper's, the difference, and a cell's facts."""

from typing import Any

import pandas as pd

from attention_ablation.report.comparable import confounds
from attention_ablation.report.notes import table_notes
from attention_ablation.report.numbers import DASH, Shown, decimals, table_frame
from attention_ablation.report.tables import display_frame
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import KINDS, Metric

MINUS = "\N{MINUS SIGN}"


def page_table(
    plan: Plan, table: str, runs: pd.DataFrame, cells: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return what the page shows of a table; `cells` gains the provenance of each of ours."""
    entry, frame = plan.study.tables[table], table_frame(plan, table, runs)
    if refused := confounds(plan, table, runs):
        return {
            "name": table,
            "number": table.removeprefix("table"),
            "title": entry.title,
            "section": entry.section,
            "headings": ["Architecture"],
            "rows": [{"label": row.label, "cells": []} for row in plan.rows(table)],
            "notes": [
                "Not shown: rows that are compared here were not trained alike.",
                *refused,
            ],
        }
    display = display_frame(plan, table, frame, runs)
    rows = []
    for row, line, shown in zip(
        plan.rows(table), frame.to_dict("records"), display.to_dict("records"), strict=True
    ):
        record = []
        for metric in entry.columns:
            heading = KINDS[metric].heading
            ours, printed = line[metric], row.printed.get(metric)
            paper = float(printed or "nan")
            # Of what both show, so that cells that agree differ by 0.
            printed_digits = len((printed or "").partition(".")[2])
            digits = min(decimals(metric, plan.specs[table, row.key]), printed_digits)
            gap = float("nan") if isinstance(ours, str) else round(ours, digits) - paper
            cell: Shown = shown[heading, "ours"]
            identifier = f"{table} {row.key} {metric}"
            cells[identifier] = {
                "title": f"Table {table.removeprefix('table')}, {row.label}: {heading}",
                "text": _explanation(line, metric, cell.text, printed),
                "runs": [run.path for run in plan.row_runs(table, row.key)]
                if not KINDS[metric].counted
                else [],
            }
            record += [
                _cell("ours", cell, ours, identifier),
                _cell("paper", shown[heading, "paper"], paper),
                _cell("difference", Shown(_signed(gap, digits)), gap),
            ]
        label: Shown = shown["Architecture", ""]
        rows.append({"label": label.text + label.mark, "cells": record})
    headings = [
        text
        for metric in entry.columns
        for text in (KINDS[metric].heading, "paper", f"ours {MINUS} paper")
    ]
    return {
        "name": table,
        "number": table.removeprefix("table"),
        "title": entry.title,
        "section": entry.section,
        "headings": ["Architecture", *headings],
        "rows": rows,
        # The last one, the tier's limits, stands at the top of the page.
        "notes": table_notes(plan, table, frame, runs)[:-1],
    }


def _cell(kind: str, shown: Shown, value: Any, identifier: str = "") -> dict[str, Any]:
    number = float("nan") if isinstance(value, str) else float(value)
    return {
        "kind": kind,
        "text": shown.text + shown.mark,
        "best": shown.best,
        "value": "" if pd.isna(number) else number,
        "id": identifier,
    }


def _signed(gap: float, digits: int) -> str:
    if pd.isna(gap):
        return DASH
    text = f"{abs(gap):.{digits}f}"
    return text if not float(text) else ("+" if gap > 0 else MINUS) + text


def _explanation(line: dict[Any, Any], metric: Metric, text: str, printed: str | None) -> str:
    paper = f"The paper prints {printed}." if printed else "The paper prints none."
    if text == DASH:
        return f"Ours: not there yet. {paper}"
    if not KINDS[metric].counted:
        if text.startswith("diverged"):
            return f"Ours: {text} runs, so there is no mean. {paper} The runs:"
        seeds = line["seeds"]
        of = f"mean and standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
        return f"Ours: {text} %, {of}, last epoch, on the validation set. {paper} The runs:"
    what = "parameters in millions"
    if metric == "gflops":
        what = "multiply-accumulates of convolutions and linear layers, in 1e9"
    size = "" if "detector" in line else ", 224 px, 1000 classes"
    return f"Ours: {text}: {what}; the full-size network{size}. {paper}"
