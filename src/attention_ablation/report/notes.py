"""What is said below a table: protocol, what is missing or doubted, and what marks stand for."""

import pandas as pd

from attention_ablation.detectors.shapes import PAPER_DATA
from attention_ablation.evidence.counted import counted
from attention_ablation.report.best import contests, measured
from attention_ablation.report.comparable import conditions
from attention_ablation.spec.recipes import DetectionRecipe
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import KINDS

MISMATCHED = "≠"
# Daggers tell cells with a named discrepancy from the footnotes' other signs.
MARKS = [mark * repeat for repeat in (1, 2, 3) for mark in "†‡§¶"]


def table_notes(plan: Plan, table: str, frame: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """Return the lines below a table; the last one is what the tier can say."""
    seeds = len(plan.seeds)
    recipes = [plan.specs[table, row.key].recipe for row in plan.rows(table)]
    protocols = dict.fromkeys(
        f"{r.dataset.name}, {r.dataset.image_size} px, {r.epochs} epochs" for r in recipes
    )
    notes = [
        f"Tier {plan.config.tier} ({plan.tier.title}): {'; '.join(protocols)}; "
        f"n = {seeds} seed{'s' * (seeds > 1)}, {_what(plan, table)} of the last epoch on the "
        "validation set" + (", mean ± standard deviation." if seeds > 1 else "."),
    ]
    short = [
        f"{line.label} n = {line.seeds} ({_why(plan, table, str(line.row), runs)})"
        for line in frame.itertuples()
        if line.seeds != seeds
    ]
    if short:
        notes.append(f"Not every run is there: {'; '.join(short)}.")
    labels = {
        run.path: row.label for row in plan.rows(table) for run in plan.row_runs(table, row.key)
    }
    notes += doubts(plan, labels, runs)
    if "dataset_remarks" in runs:
        remarks = dict.fromkeys(runs.loc[list(labels), "dataset_remarks"].dropna())
        notes += [f"Data: {remark}." for remark in remarks]
    if differ := conditions(plan, table, runs):
        notes.append(f"Not trained alike: {'. '.join(differ)}.")
    notes.append(
        "Bold: the best. In our columns only where the paired 95 % interval to the next row "
        "excludes 0" + ("." if seeds > 1 else "; one seed resolves nothing, so none is.")
    )
    notes += _unresolved(plan, table, runs)
    if "params_m" in plan.study.tables[table].columns:
        notes.append(_counted_on(plan, table))
    for name, mark in discrepancies(plan, table).items():
        notes.append(f"{mark} {name}: {plan.study.discrepancies[name].explanation}")
    if unexplained(plan, table):
        notes.append(f"{MISMATCHED} printed Params or GFLOPs that the network does not have.")
    return [*notes, plan.tier.limits]


def _what(plan: Plan, table: str) -> str:
    recipes = [plan.specs[table, row.key].recipe for row in plan.rows(table)]
    metrics = {recipe.metric for recipe in recipes if isinstance(recipe, DetectionRecipe)}
    if not metrics:
        return "error"
    return "11-point mAP (VOC 2007)" if metrics == {"voc"} else "mAP by COCO's rules"


def _counted_on(plan: Plan, table: str) -> str:
    classes = [PAPER_DATA[row.detector][0] for row in plan.rows(table) if row.detector]
    if not classes:
        return "Params and GFLOPs: counted on the full-size network, 224 px, 1000 classes."
    return f"Params: counted on the full-size detector with {classes[0]} classes and background."


def discrepancies(plan: Plan, table: str) -> dict[str, str]:
    """Return a table's named discrepancies and their marks."""
    names = [name for name, d in plan.study.discrepancies.items() if d.table == table]
    return dict(zip(names, MARKS, strict=False))


def marks(plan: Plan, table: str) -> dict[tuple[str, str], str]:
    """Return the marks of printed cells that a discrepancy explains, by metric and row."""
    return {
        (metric, key): mark
        for name, mark in discrepancies(plan, table).items()
        for key in plan.study.discrepancies[name].rows
        for metric in plan.study.discrepancies[name].metrics
    }


def _unresolved(plan: Plan, table: str, runs: pd.DataFrame) -> list[str]:
    """Say of each metric which groups' best is not resolved, and by what numbers."""
    labels = {row.key: row.label for row in plan.rows(table)}
    notes = []
    for metric in measured(plan, table):
        groups = []
        for found in contests(plan, table, metric, runs):
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
            notes.append(f"{KINDS[metric].heading}, best not resolved: {'; '.join(groups)}.")
    return notes


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


def doubts(plan: Plan, places: dict[str, str], runs: pd.DataFrame) -> list[str]:
    """Return a line that names the runs whose folders fail verification, nothing if none does.

    Args:
        places: what shows a run, by its path.
    """
    found = [
        f"{place}, seed {plan.runs[path].seed} ({verdict.removeprefix('no: ')})"
        for path, place in places.items()
        if (verdict := str(runs.loc[path, "verified"])).startswith("no: ")
    ]
    return (
        [f"Not to be trusted: {'; '.join(found)}; see attention-ablation verify."] if found else []
    )


def unexplained(plan: Plan, table: str) -> list[str]:
    """Return the rows whose printed size the network does not have, and nothing explains."""
    verdicts = counted(plan, table)["verdict"]
    return list(verdicts.index[verdicts == "MISMATCH"])
