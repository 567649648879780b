"""What is said below a table: protocol, what is missing or doubted, and what marks stand for."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from attention_ablation.report.results import MISMATCHED, OUTSIDE, Results, discrepancies, written
from attention_ablation.spec.recipes import DetectionRecipe, Recipe
from attention_ablation.study.config import Row
from attention_ablation.study.confounds import CHANGES_NUMBERS, NOTED, differing
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import COUNTED, SIZES

RECONSTRUCTED = (
    "trained by a reconstruction of DREAL (arXiv:2007.06156), of which no code is published; its "
    "critic is dropped at the end."
)


def table_notes(plan: Plan, results: Results, runs: pd.DataFrame) -> list[str]:
    """Return the lines below a table; the last one is what the tier can say."""
    seeds, table = len(plan.seeds), results.table
    recipes = [plan.specs[table, row.key].recipe for row in plan.rows(table)]
    protocols = dict.fromkeys(
        f"{r.dataset.name}, {r.dataset.image_size} px, {r.epochs} epoch{'s' * (r.epochs > 1)}"
        for r in recipes
    )
    notes = [
        f"Tier {plan.config.tier} ({plan.tier.title}): {'; '.join(protocols)}; "
        f"n = {seeds} seed{'s' * (seeds > 1)}{_what(results, recipes)}"
        + (", mean ± standard deviation." if seeds > 1 else "."),
    ]
    short = [
        f"{line.row.label} n = {line.n} ({_why(plan, table, line.row.key, runs)})"
        for line in results.rows
        if line.n != seeds
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
        "Bold: the best"
        + (". In our columns only" if results.printed else ", only")
        + " where the paired 95 % interval to the next row excludes 0"
        + ("." if seeds > 1 else "; one seed resolves nothing, so none is.")
    )
    notes += _unresolved(results)
    if plan.follows_paper and seeds == 1:
        notes.append("Two seeds or more would say whether our runs reproduce the paper's numbers.")
    notes += _reproduced(results)
    notes += _started(plan, table)
    notes += _front_ends(plan, table)
    notes += _methods(plan, table)
    notes += _counted_on(plan, results)
    notes += _printed_by(plan, table)
    for name, mark in discrepancies(plan, table).items():
        notes.append(f"{mark} {name}: {plan.study.discrepancies[name].explanation}")
    if any(line.mark for line in results.rows):
        notes.append(f"{MISMATCHED} printed Params or GFLOPs that the network does not have.")
    return [*notes, plan.tier.limits]


def _what(results: Results, recipes: Sequence[Recipe]) -> str:
    """Say what is measured on the validation set."""
    rules = {recipe.metric for recipe in recipes if isinstance(recipe, DetectionRecipe)}
    maps = "11-point mAP (VOC 2007)" if rules == {"voc"} else "mAP by COCO's rules"
    names = dict.fromkeys(
        maps
        if metric.source.startswith("validation_map")
        else "error"
        if metric.source.endswith("_error")
        else metric.heading
        for metric in results.columns.values()
        if metric.source.startswith("validation_")
    )
    return f", {' and '.join(names)} of the last epoch on the validation set" if names else ""


def _counted_on(plan: Plan, results: Results) -> list[str]:
    counted = [metric for metric in results.columns.values() if metric.counted]
    headings = [metric.heading for metric in counted if metric.source in SIZES]
    detectors = {line.row.detector: None for line in results.rows if line.row.detector}
    on = f"full-size network, {plan.study.counted_on.text}"
    if detectors:
        sizes = [plan.study.counted_on.size(name) for name in detectors]
        classes = " or ".join(dict.fromkeys(str(size.classes) for size in sizes))
        on = f"full-size detector with {classes} classes and background"
    notes = [f"{' and '.join(headings)}: counted on the {on}."] if headings else []
    # What else stands beside the sizes without a recipe of the tier.
    for metric in (metric for metric in counted if metric.source not in SIZES):
        said = COUNTED[metric.source]
        if metric.source == "time_over_bare" and plan.study.times:
            said = plan.study.times.conditions.rstrip(".")
        notes.append(f"{metric.heading}: {said}.")
    return notes


def _unresolved(results: Results) -> list[str]:
    """Say of each metric which groups' best is not resolved, and by what numbers."""
    labels = {line.row.key: line.row.label for line in results.rows}
    notes = []
    for name, contests in results.contests.items():
        groups = []
        for found in (c for c in contests if not c.resolved and c.n > 1):
            spread = "the same in every seed"
            if found.interval:
                low, high = (written(end, ".2f") for end in found.interval)
                spread = f"95 % interval {low} to {high}"
            names = f"{labels[found.first]} against {labels[found.second]}"
            mean = written(found.mean, ".2f")
            groups.append(f"{names}: difference {mean}, {spread}, n = {found.n}")
        if groups:
            title = results.columns[name].title
            notes.append(f"{title}, best not resolved: {'; '.join(groups)}.")
    return notes


def _reproduced(results: Results) -> list[str]:
    """Say how many printed values one further run of ours would give, and which ones not."""
    trained = {n: metric.heading for n, metric in results.columns.items() if not metric.counted}
    cells = [
        (heading, line.row.label, line.cells[name])
        for name, heading in trained.items()
        for line in results.rows
        if line.cells[name].paper
    ]
    judged = [found for found in cells if found[2].paper_inside is not None]
    if not judged:
        return []
    inside = sum(bool(cell.paper_inside) for *_, cell in judged)
    notes = [
        f"Of the paper's values, each of one run, {inside} of {len(judged)} lie in our 95 % "
        "prediction interval for one further run. Of exact reproductions one in twenty does not."
    ]
    if outside := [
        f"{label}, {heading}: {cell.paper} against {cell.prediction_text}"
        for heading, label, cell in judged
        if not cell.paper_inside
    ]:
        notes.append(f"{OUTSIDE} outside that interval: {'; '.join(outside)}.")
    return notes


def _started(plan: Plan, table: str) -> list[str]:
    """Say where the tier, and not the study, starts gates as the identity."""
    if not any(
        plan.specs[table, row.key].attention.start == "identity"
        and plan.study.attentions[row.attention].start is None
        for row in plan.rows(table)
    ):
        return []
    return [
        "This tier starts gates as the identity, with twice the sigmoid; the authors' sigmoid "
        "starts SE at a half and CBAM at a quarter. A short training would show that gain, and not "
        "attention; the study controls measures it."
    ]


def _printed_by(plan: Plan, table: str) -> list[str]:
    """Say where each printed value is from, and of what recipe, where rows say so."""
    rows = [row for row in plan.rows(table) if row.printed and (row.source or row.protocol)]
    by: dict[str, list[str]] = {}
    for row in rows:
        by.setdefault("; ".join(filter(None, (row.source, row.protocol))), []).append(row.label)
    if not by:
        return []
    differ = "They are of different papers or recipes and cannot be compared with one another. "
    listed = ". ".join(f"{', '.join(labels)}: {said}" for said, labels in by.items())
    several = len(by) > 1
    return [f"Printed values. {differ * several}{listed}."]


def _methods(plan: Plan, table: str) -> list[str]:
    """Say which rows are trained by a method that is not its authors' own."""
    rows = [row for row in plan.rows(table) if plan.specs[table, row.key].attention.method]
    labels = ", ".join(row.label for row in rows)
    return [f"{labels}: {RECONSTRUCTED}"] if rows else []


def _front_ends(plan: Plan, table: str) -> list[str]:
    """Say how the front-ends of rows were trained."""
    rows = [row for row in plan.rows(table) if row.front_end]
    firsts = [first for row in rows if (first := plan.specs[table, row.key].initial)]
    epochs = " or ".join(dict.fromkeys(str(first.recipe.epochs) for first in firsts))
    labels = ", ".join(row.label for row in rows)
    said = f"{labels}: the front-end is trained first, for {epochs} epochs, and then kept as it is."
    return [said] if rows else []


def _why(plan: Plan, table: str, key: str, runs: pd.DataFrame) -> str:
    """Return what became of a row's runs that did not complete, each reason once."""
    outcomes = runs.loc[[run.path for run in plan.row_runs(table, key)]]
    outcomes = outcomes[outcomes["status"] != "completed"].reindex(columns=["status", "reason"])
    texts = [
        f"{status}: {reason.rstrip('.')}" if isinstance(reason, str) else str(status)
        for status, reason in outcomes.itertuples(index=False)
    ]
    return "; ".join(dict.fromkeys(texts))


def doubts(plan: Plan, places: dict[str, str], runs: pd.DataFrame) -> list[str]:
    """Return a line that names the runs whose folders fail verification, nothing if none does.

    `places` says what shows a run, by its path.
    """
    found = [
        f"{place}, seed {plan.runs[path].seed} ({verdict.removeprefix('no: ')})"
        for path, place in places.items()
        if (verdict := str(runs.loc[path, "verified"])).startswith("no: ")
    ]
    if not found:
        return []
    return [f"Not to be trusted: {'; '.join(found)}; see attention-ablation verify."]


def confounds(plan: Plan, table: str, runs: pd.DataFrame) -> list[str]:
    """Return a line for each fact that changes numbers and differs among rows that are compared."""
    return [
        line
        for group in plan.groups(table)
        for line in differing(_facts(plan, group, runs, CHANGES_NUMBERS))
    ]


def conditions(plan: Plan, table: str, runs: pd.DataFrame) -> list[str]:
    """Return a line for each other fact in which a table's trainings differ."""
    return differing(_facts(plan, plan.rows(table), runs, NOTED))


def _facts(
    plan: Plan, rows: list[Row], runs: pd.DataFrame, keys: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return what is known of the trainings whose numbers are shown, by row and seed."""
    trained = runs.loc[runs["status"].isin(["completed", "diverged"]), runs.columns.isin(keys)]
    known = trained.to_dict("index")
    return {
        # What a run did not record cannot differ.
        row.key + f" seed {run.seed}" * (len(plan.seeds) > 1): {
            str(key): fact for key, fact in known[run.path].items() if pd.notna(fact)
        }
        for row in rows
        for run in plan.row_runs(row.table, row.key)
        if run.path in known
    }
