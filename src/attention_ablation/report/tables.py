"""The paper's tables: ours beside the paper's, as CSV, Markdown and LaTeX."""

from typing import Any

import pandas as pd

from attention_ablation.base.io import write_text
from attention_ablation.report.best import best_ours, best_printed
from attention_ablation.report.comparable import check_comparable
from attention_ablation.report.latex import to_latex
from attention_ablation.report.markdown import bullets, cell, escape
from attention_ablation.report.notes import MISMATCHED, marks, table_notes, unexplained
from attention_ablation.report.numbers import DASH, Shown, cell_text, decimals, table_frame
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import KINDS


def write_table(plan: Plan, table: str, runs: pd.DataFrame) -> None:
    """Write `tables/<table>.csv`, `.md` and `.tex`.

    Raises UserError where rows that are compared were trained so that their numbers differ.
    """
    check_comparable(plan, table, runs)
    folder = plan.folder / "tables"
    for kind, text in rendered(plan, table, runs).items():
        write_text(folder / f"{table}.{kind}", text)


def rendered(plan: Plan, table: str, runs: pd.DataFrame) -> dict[str, str]:
    """Return a table's text as csv, md and tex."""
    frame = table_frame(plan, table, runs)
    display = display_frame(plan, table, frame, runs)
    notes = table_notes(plan, table, frame, runs)
    return {
        "csv": frame.to_csv(index=False),
        "md": _markdown(plan, table, display, notes),
        "tex": _latex(plan, table, display, notes),
    }


def display_frame(plan: Plan, table: str, frame: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the table's cells as every format shows them, each a `Shown`."""
    rows = plan.rows(table)
    odd = unexplained(plan, table)
    columns = {
        ("Architecture", ""): [
            Shown(row.label, mark=f" {MISMATCHED}" * (row.key in odd)) for row in rows
        ]
    }
    ours_best, paper_best = best_ours(plan, table, runs), best_printed(plan, table)
    signs = marks(plan, table)
    for metric in plan.study.tables[table].columns:
        ours, paper = [], []
        for row, line in zip(rows, frame.to_dict("records"), strict=True):
            text = cell_text(metric, line, decimals(metric, plan.specs[table, row.key]))
            ours.append(Shown(text, (metric, row.key) in ours_best))
            printed, mark = row.printed.get(metric, DASH), signs.get((metric, row.key), "")
            paper.append(Shown(printed, (metric, row.key) in paper_best, mark))
        columns[KINDS[metric].heading, "ours"] = ours
        columns[KINDS[metric].heading, "paper"] = paper
    return pd.DataFrame(columns)


def _title(plan: Plan, table: str) -> str:
    entry = plan.study.tables[table]
    return f"{entry.title} (section {entry.section})"


def _headings(display: pd.DataFrame) -> list[tuple[str, str]]:
    pairs: Any = display.columns.to_list()  # a MultiIndex, which pandas' stubs take for text
    return [(heading, of) for heading, of in pairs]


def _markdown(plan: Plan, table: str, display: pd.DataFrame, notes: list[str]) -> str:
    body = display.map(cell).to_markdown(
        index=False,
        disable_numparse=True,
        headers=["paper" if of == "paper" else heading for heading, of in _headings(display)],
        colalign=["left"] + ["right"] * (display.shape[1] - 1),
    )
    number = table.removeprefix("table")
    title = escape(_title(plan, table))
    return f"**Table {number}. {title}**\n\n{body}\n\n{bullets(notes)}"


def _latex(plan: Plan, table: str, display: pd.DataFrame, notes: list[str]) -> str:
    return to_latex(
        display,
        _headings(display),
        notes,
        caption=f"Table {table.removeprefix('table')} of the paper: {_title(plan, table)}",
        label=f"tab:{plan.study.name}-{table}",
    )
