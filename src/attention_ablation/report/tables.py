"""The paper's tables: ours beside the paper's, as CSV, Markdown and LaTeX."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from attention_ablation.analysis.counted import counted
from attention_ablation.analysis.statistics import Contest, contest
from attention_ablation.report.comparable import check_comparable, conditions
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import Metric
from attention_ablation.study.spec import Spec

HEADINGS: dict[Metric, str] = {
    "params_m": "Params (M)",
    "gflops": "GFLOPs",
    "top1_error": "Top-1 error (%)",
    "top5_error": "Top-5 error (%)",
}
ERRORS: tuple[Metric, ...] = ("top1_error", "top5_error")
DASH = "-"
MISMATCHED = "≠"
# Daggers tell cells with a named discrepancy from the footnotes' other signs.
MARKS = [mark * repeat for repeat in (1, 2, 3) for mark in "†‡§¶"]


def table_frame(plan: Plan, table: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table's numbers, a line for each row, in the columns of its CSV.

    `seeds` counts completed runs; errors are their mean and sample standard deviation in percent.
    A row with a diverged run says 'diverged k/n' in place of a mean over the rest.
    """
    sizes = counted(plan, table)
    records = []
    for row in plan.rows(table):
        outcomes = runs.loc[[run.path for run in plan.row_runs(table, row.key)]]
        done = outcomes[outcomes["status"] == "completed"]
        diverged = int((outcomes["status"] == "diverged").sum())
        record: dict[str, Any] = {
            "row": row.key,
            "label": row.label,
            "backbone": row.backbone,
            "attention": row.attention,
            "seeds": len(done),
        }
        for metric in HEADINGS:
            if metric in ERRORS:
                values = done.get(f"validation_{metric}", pd.Series(dtype=float)).astype(float)
                record[metric] = round(values.mean(), 4)
                record[f"{metric}_sd"] = round(values.std(), 4)
                if diverged:
                    record[metric] = f"diverged {diverged}/{len(outcomes)}"
                    record[f"{metric}_sd"] = float("nan")
            else:
                record[metric] = sizes[metric].get(row.key, float("nan"))
            record[f"{metric}_paper"] = row.printed.get(metric, "")
        records.append(record)
    return pd.DataFrame(records)


def write_table(plan: Plan, table: str, runs: pd.DataFrame) -> None:
    """Write `tables/<table>.csv`, `.md` and `.tex`.

    Raises UserError where rows that are compared were trained so that their numbers differ.
    """
    check_comparable(plan, table, runs)
    folder = plan.folder / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, text in rendered(plan, table, runs).items():
        (folder / f"{table}.{kind}").write_text(text)


def rendered(plan: Plan, table: str, runs: pd.DataFrame) -> dict[str, str]:
    """Return a table's text as csv, md and tex."""
    frame = table_frame(plan, table, runs)
    return {
        "csv": frame.to_csv(index=False),
        "md": _markdown(plan, table, frame, runs),
        "tex": _latex(plan, table, frame, runs),
    }


def display_frame(
    plan: Plan, table: str, frame: pd.DataFrame, runs: pd.DataFrame, bold: str
) -> pd.DataFrame:
    """Return the table as text; `bold` is the format of the best cells."""
    rows = plan.rows(table)
    unexplained = _unexplained(plan, table)
    columns = {
        ("Architecture", ""): [
            row.label + f" {MISMATCHED}" * (row.key in unexplained) for row in rows
        ]
    }
    ours_best, paper_best = _best_ours(plan, table, runs), _best_printed(plan, table)
    marks = _marks(plan, table)
    for metric in plan.study.tables[table].columns:
        ours, paper = [], []
        for row, line in zip(rows, frame.to_dict("records"), strict=True):
            text = cell_text(metric, line, decimals(metric, plan.specs[table, row.key]))
            ours.append(bold.format(text) if (metric, row.key) in ours_best else text)
            printed = row.printed.get(metric, DASH)
            printed = bold.format(printed) if (metric, row.key) in paper_best else printed
            paper.append(printed + marks.get((metric, row.key), ""))
        columns[HEADINGS[metric], "ours"] = ours
        columns[HEADINGS[metric], "paper"] = paper
    return pd.DataFrame(columns)


def cell_text(metric: Metric, line: Mapping[Any, Any], decimals: int) -> str:
    """Return a cell as the tables show it, from a line of `table_frame`."""
    value, spread = line[metric], line.get(f"{metric}_sd")
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return DASH
    return f"{value:.{decimals}f}" + (f" ± {spread:.{decimals}f}" if pd.notna(spread) else "")


def decimals(metric: Metric, spec: Spec) -> int:
    """Return how many digits of a metric are shown."""
    if metric in ERRORS:
        # An error of n images has steps of 100/n percent: no digit below that.
        images = spec.recipe.dataset.validation_images
        return 2 if images >= 10_000 else 1
    return 2 if metric == "params_m" else 3


def _contests(plan: Plan, table: str, metric: Metric, runs: pd.DataFrame) -> list[Contest]:
    """Return the best row of each group against the next one, where every run is there."""
    contests = []
    for group in plan.groups(table):
        values = {}
        for row in group:
            outcomes = runs.loc[[run.path for run in plan.row_runs(table, row.key)]]
            if (outcomes["status"] == "completed").all():
                values[row.key] = outcomes[f"validation_{metric}"].astype(float).tolist()
        # A row that is not complete leaves the winner open.
        if len(values) == len(group) and (found := contest(values)):
            contests.append(found)
    return contests


def _best_ours(plan: Plan, table: str, runs: pd.DataFrame) -> set[tuple[str, str]]:
    return {
        (metric, found.first)
        for metric in ERRORS
        for found in _contests(plan, table, metric, runs)
        if found.resolved
    }


def _unresolved(plan: Plan, table: str, runs: pd.DataFrame) -> list[str]:
    """Say of each metric which groups' best is not resolved, and by what numbers."""
    labels = {row.key: row.label for row in plan.rows(table)}
    notes = []
    for metric in ERRORS:
        groups = []
        for found in _contests(plan, table, metric, runs):
            d = found.difference
            if found.resolved or d.n < 2:
                continue
            spread = (
                f"95 % interval {d.interval[0]:.2f} to {d.interval[1]:.2f}"
                if d.interval
                else "the same in every seed"
            )
            names = f"{labels[found.first]} against {labels[found.second]}"
            groups.append(f"{names}: difference {d.mean:.2f}, {spread}, n = {d.n}")
        if groups:
            notes.append(f"{HEADINGS[metric]}, best not resolved: {'; '.join(groups)}.")
    return notes


def _best_printed(plan: Plan, table: str) -> set[tuple[str, str]]:
    best: set[tuple[str, str]] = set()
    for group in plan.groups(table):
        for metric in ERRORS:
            printed = {
                row.key: float(row.printed[metric]) for row in group if metric in row.printed
            }
            if len(printed) > 1:
                best.add((metric, min(printed, key=lambda key: printed[key])))
    return best


def discrepancies(plan: Plan, table: str) -> dict[str, str]:
    """Return a table's named discrepancies and their marks."""
    names = [name for name, d in plan.study.discrepancies.items() if d.table == table]
    return dict(zip(names, MARKS, strict=False))


def _marks(plan: Plan, table: str) -> dict[tuple[str, str], str]:
    return {
        (metric, key): mark
        for name, mark in discrepancies(plan, table).items()
        for key in plan.study.discrepancies[name].rows
        for metric in plan.study.discrepancies[name].metrics
    }


def table_notes(plan: Plan, table: str, frame: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    seeds = len(plan.seeds)
    recipes = [plan.specs[table, row.key].recipe for row in plan.rows(table)]
    protocols = dict.fromkeys(
        f"{r.dataset.name}, {r.dataset.image_size} px, {r.epochs} epochs" for r in recipes
    )
    notes = [
        f"Tier {plan.config.tier} ({plan.tier.title}): {'; '.join(protocols)}; "
        f"n = {seeds} seed{'s' * (seeds > 1)}, error of the last epoch on the validation set"
        + (", mean ± standard deviation." if seeds > 1 else "."),
    ]
    short = [
        f"{line.label} n = {line.seeds} ({_why(plan, table, str(line.row), runs)})"
        for line in frame.itertuples()
        if line.seeds != seeds
    ]
    if short:
        notes.append(f"Not every run is there: {'; '.join(short)}.")
    if doubted := _doubted(plan, table, runs):
        notes.append(f"Not to be trusted: {'; '.join(doubted)}. `attention-ablation verify`.")
    if differ := conditions(plan, table, runs):
        notes.append(f"Not trained alike: {'. '.join(differ)}.")
    notes.append(
        "Bold: the best. In our columns only where the paired 95 % interval to the next row "
        "excludes 0" + ("." if seeds > 1 else "; one seed resolves nothing, so none is.")
    )
    notes += _unresolved(plan, table, runs)
    if "params_m" in plan.study.tables[table].columns:
        notes.append("Params and GFLOPs: counted on the full-size network, 224 px, 1000 classes.")
    for name, mark in discrepancies(plan, table).items():
        notes.append(f"{mark} {name}: {plan.study.discrepancies[name].explanation}")
    if _unexplained(plan, table):
        notes.append(f"{MISMATCHED} printed Params or GFLOPs that the network does not have.")
    return [*notes, " ".join(plan.tier.limits.split())]


def _why(plan: Plan, table: str, key: str, runs: pd.DataFrame) -> str:
    """Return what became of a row's runs that did not complete, each reason once."""
    outcomes = runs.loc[[run.path for run in plan.row_runs(table, key)]]
    outcomes = outcomes[outcomes["status"] != "completed"]
    reasons = outcomes.get("reason", pd.Series(index=outcomes.index, dtype=object))
    texts = [
        f"{status}: {reason.rstrip('.')}" if isinstance(reason, str) else str(status)
        for status, reason in zip(outcomes["status"], reasons, strict=True)
    ]
    return "; ".join(dict.fromkeys(texts))


def _doubted(plan: Plan, table: str, runs: pd.DataFrame) -> list[str]:
    """Return the rows that have runs whose folders fail verification, and why."""
    verified = runs["verified"].fillna("").astype(str)
    return [
        f"{row.label}, seed {run.seed} ({verified[run.path].removeprefix('no: ')})"
        for row in plan.rows(table)
        for run in plan.row_runs(table, row.key)
        if verified[run.path].startswith("no: ")
    ]


def _unexplained(plan: Plan, table: str) -> list[str]:
    verdicts = counted(plan, table)["verdict"]
    return list(verdicts.index[verdicts == "MISMATCH"])


def _title(plan: Plan, table: str) -> str:
    entry = plan.study.tables[table]
    return f"{entry.title} (section {entry.section})"


def _headings(display: pd.DataFrame) -> list[tuple[str, str]]:
    pairs: Any = display.columns.to_list()  # a MultiIndex, which pandas' stubs take for text
    return [(heading, of) for heading, of in pairs]


def _markdown(plan: Plan, table: str, frame: pd.DataFrame, runs: pd.DataFrame) -> str:
    display = display_frame(plan, table, frame, runs, "**{}**")
    body = display.map(lambda text: text.replace("|", "\\|")).to_markdown(
        index=False,
        disable_numparse=True,
        headers=["paper" if of == "paper" else heading for heading, of in _headings(display)],
        colalign=["left"] + ["right"] * (display.shape[1] - 1),
    )
    number = table.removeprefix("table")
    notes = "\n".join(f"- {note}" for note in table_notes(plan, table, frame, runs))
    return f"**Table {number}. {_title(plan, table)}**\n\n{body}\n\n{notes}\n"


def _latex(plan: Plan, table: str, frame: pd.DataFrame, runs: pd.DataFrame) -> str:
    def escape(text: str) -> str:
        for plain, tex in LATEX.items():
            text = text.replace(plain, tex)
        return text

    display = display_frame(plan, table, frame, runs, "<<{}>>").map(escape)
    display.columns = pd.MultiIndex.from_tuples(
        [(escape(heading), of) for heading, of in _headings(display)]
    )
    body = display.style.hide(axis="index").to_latex(
        column_format="l" + "r" * (display.shape[1] - 1),
        hrules=True,
        multicol_align="c",
        caption=escape(f"Table {table.removeprefix('table')} of the paper: {_title(plan, table)}"),
        label=f"tab:{plan.study.name}-{table}",
        position_float="centering",
    )
    notes = "\\\\\n".join(escape(note) for note in table_notes(plan, table, frame, runs))
    end = "\\end{table}"
    note_block = f"\\par\\smallskip\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{notes}\n"
    body = body.replace("\\centering\n", "\\centering\\small\\setlength{\\tabcolsep}{4pt}\n")
    return "% Needs \\usepackage{booktabs}.\n" + body.replace(
        end, f"{note_block}\\end{{minipage}}\n{end}"
    )


# `<<` and `>>` stand for bold until everything else is escaped.
LATEX = {
    "\\": "\N{BACKSPACE}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "\N{BACKSPACE}": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "±": r"$\pm$",
    "≠": r"$\neq$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "¶": r"$^\P$",
    "<<": r"\textbf{",
    ">>": "}",
}
