"""The paper's tables, ours beside the paper's, as files."""

import pandas as pd

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import write_text
from attention_ablation.evidence.complexity import read_counts
from attention_ablation.report.latex import to_latex
from attention_ablation.report.markdown import to_markdown
from attention_ablation.report.notes import confounds, table_notes
from attention_ablation.report.results import Results, table_results
from attention_ablation.study.expand import Plan

FORMS = ("csv", "md", "tex")


def write_table(plan: Plan, table: str, runs: pd.DataFrame) -> None:
    """Write `tables/<table>.csv`, `.md` and `.tex`.

    Raises UserError where rows that are compared were trained so that their numbers differ.
    """
    if lines := confounds(plan, table, runs):
        found = "".join(f"\n  {line}" for line in lines)
        raise UserError(
            f"{table}: expected the same for all trainings that are compared, got{found}\nDelete "
            f"the folders of those that are to change, below {plan.runs_folder}, and train them "
            "like the others: with as many processes, on the same data."
        )
    for form, text in rendered(plan, table, runs).items():
        write_text(plan.folder / f"tables/{table}.{form}", text)


def rendered(plan: Plan, table: str, runs: pd.DataFrame) -> dict[str, str]:
    """Return a table's text as csv, md and tex."""
    results = table_results(plan, table, runs, read_counts(plan))
    notes = table_notes(plan, results, runs)
    entry = plan.study.tables[table]
    title = entry.title + f" (section {entry.section})" * bool(entry.section)
    return {
        "csv": _csv(results, judged=plan.follows_paper),
        "md": to_markdown(results, title, notes),
        "tex": to_latex(results, title, notes, label=f"tab:{plan.study.name}-{table}"),
    }


def _csv(results: Results, *, judged: bool) -> str:
    """Return a line for each row; `seeds` counts completed runs, `_sd` is of a sample.

    A row with a diverged run says 'diverged k/n' in place of a mean over the rest. `judged`: with
    `_paper_in_interval`, whether one further run would give the paper's number.
    """
    front_ends = any(line.row.front_end for line in results.rows)
    records = []
    for line in results.rows:
        row = line.row
        record: dict[str, object] = {"row": row.key, "label": row.label, "backbone": row.backbone}
        record |= {"front_end": row.front_end} if front_ends else {}
        record |= {"detector": row.detector} if row.detector else {}
        record |= {"attention": row.attention, "seeds": line.n}
        for name, cell in line.cells.items():
            diverged = cell.value is None and cell.text.startswith("diverged")
            record[name] = cell.text if diverged else cell.value
            if cell.runs:
                record[f"{name}_sd"] = cell.spread
            record[f"{name}_paper"] = cell.paper
            if judged and cell.runs:
                record[f"{name}_paper_in_interval"] = cell.paper_inside
        records.append(record)
    return pd.DataFrame(records, dtype=object).to_csv(index=False)
