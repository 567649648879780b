"""The paper's tables, ours beside the paper's, as files."""

import csv
import io

import pandas as pd

from attention_ablation.base.io import write_text
from attention_ablation.evidence.complexity import read_counts
from attention_ablation.report.comparable import check_comparable
from attention_ablation.report.latex import to_latex
from attention_ablation.report.markdown import to_markdown
from attention_ablation.report.notes import table_notes
from attention_ablation.report.results import Results, table_results
from attention_ablation.study.expand import Plan

FORMS = ("csv", "md", "tex")


def write_table(plan: Plan, table: str, runs: pd.DataFrame) -> None:
    """Write `tables/<table>.csv`, `.md` and `.tex`.

    Raises UserError where rows that are compared were trained so that their numbers differ.
    """
    check_comparable(plan, table, runs)
    for form, text in rendered(plan, table, runs).items():
        write_text(plan.folder / f"tables/{table}.{form}", text)


def rendered(plan: Plan, table: str, runs: pd.DataFrame) -> dict[str, str]:
    """Return a table's text as csv, md and tex."""
    results = table_results(plan, table, runs, read_counts(plan))
    notes = table_notes(plan, results, runs)
    entry = plan.study.tables[table]
    title = f"{entry.title} (section {entry.section})"
    return {
        "csv": to_csv(results),
        "md": to_markdown(results, title, notes),
        "tex": to_latex(results, title, notes, label=f"tab:{plan.study.name}-{table}"),
    }


def to_csv(results: Results) -> str:
    """Return a line for each row; `seeds` counts completed runs, `_sd` is of a sample.

    A row with a diverged run says 'diverged k/n' in place of a mean over the rest.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, line in enumerate(results.rows):
        row = line.row
        record: dict[str, object] = {"row": row.key, "label": row.label, "backbone": row.backbone}
        record |= {"detector": row.detector} if row.detector else {}
        record |= {"attention": row.attention, "seeds": line.n}
        for name, cell in line.cells.items():
            diverged = cell.value is None and cell.text.startswith("diverged")
            record[name] = cell.text if diverged else cell.value
            if cell.runs:
                record[f"{name}_sd"] = cell.spread
            record[f"{name}_paper"] = cell.paper
        if not number:
            writer.writerow(record)
        writer.writerow(record.values())
    return text.getvalue()
