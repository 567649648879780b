"""Every number that the tables show, held to the folders of the runs that it came from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path

import pandas as pd

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_text
from attention_ablation.evidence.complexity import COMPLEXITY_CSV, complexity_csv, count_rows
from attention_ablation.report.claims import CLAIMS_CSV, CLAIMS_MD, rendered_claims
from attention_ablation.report.collect import RUNS_CSV, collect
from attention_ablation.report.html import REPORT, rendered_report
from attention_ablation.report.notes import conditions, confounds
from attention_ablation.report.tables import FORMS, rendered
from attention_ablation.runs.verify import LEVELS, NOTE, WARNING, WRONG, Finding, check_run
from attention_ablation.study.expand import Plan, load_plan


def verify(plan: Plan, runs: pd.DataFrame, *, weights: bool = True) -> list[Finding]:
    """Return all findings about a plan's runs, with their weights, and what is rendered of them.

    Every file that is there must be what the runs, or a new count of the networks, give now. Of
    figures that holds for their numbers; pictures are in the page as they are on the disk.
    """

    def check(runs: Iterable[str]) -> list[Finding]:
        folders = [plan.runs_folder / path for path in runs]
        return [finding for folder in folders for finding in check_run(folder, weights=weights)]

    findings = check(plan.runs)
    for table in plan.tables:
        for line in conditions(plan, table, runs):
            what = f"its runs were made under several conditions: {line}"
            findings.append(Finding(NOTE, table, what))
        for line in confounds(plan, table, runs):
            what = f"rows that are compared were not trained alike: {line}"
            findings.append(Finding(WRONG, table, what))
    checked = _check(plan, runs)
    if any(checked.values()) and (other := _rendered_for(plan)):
        text = "made for another choice of tables or seeds, and in agreement with its runs"
        remedy = f"verify with that choice, {_choice(other, plan)}, or render again"
        findings += check(path for path in other.runs if path not in plan.runs)
        for where, finding in _check(other, collect(other)).items():
            if not finding and checked.get(where):
                checked[where] = Finding(WARNING, where, text, remedy)
    return findings + [finding for finding in checked.values() if finding]


def _check(plan: Plan, runs: pd.DataFrame) -> dict[str, Finding | None]:
    """Return what is wrong with each rendered file that is there, None where it is as made now."""
    # Files that are made together, below the study's folder, and what gives their texts.
    made: dict[tuple[str, ...], Callable[[], Mapping[str, str]]] = {
        (COMPLEXITY_CSV,): lambda: {COMPLEXITY_CSV: complexity_csv(count_rows(plan.study))},
        (RUNS_CSV,): lambda: {RUNS_CSV: runs.to_csv()},
        (REPORT,): lambda: {REPORT: rendered_report(plan, runs)},
    }
    if plan.study.claims:
        made[CLAIMS_CSV, CLAIMS_MD] = partial(rendered_claims, plan, runs)
    for name in plan.figures:
        if plan.study.figures[name].numbers:
            made[(f"figures/{name}.csv",)] = partial(_figure, plan, name)
    for table in plan.tables:
        if not confounds(plan, table, runs):  # else it is not rendered
            names = tuple(f"tables/{table}.{form}" for form in FORMS)
            made[names] = partial(rendered, plan, table, runs)
    checked: dict[str, Finding | None] = {}
    for names, texts in made.items():
        checked |= _compare(plan.folder, names, texts)
    return checked


def _rendered_for(plan: Plan) -> Plan | None:
    """Return the plan of the tables and seeds that runs.csv shows, None if it has no others."""
    try:
        text = read_text(plan.folder / RUNS_CSV)
        frame = pd.read_csv(StringIO(text), usecols=["rows", "seed"], dtype=str)
        shown = {
            place.partition(":")[0] for places in frame["rows"].dropna() for place in places.split()
        }
        tables = [table for table in plan.study.tables if table in shown]
        seeds = [int(seed) for seed in frame["seed"].unique()]
        if (tables, seeds) == (plan.tables, plan.seeds):
            return None
        return load_plan(plan.config.model_dump() | {"tables": tables, "seeds": seeds}, plan.root)
    except (UserError, ValueError):  # it is wrong itself
        return None


def _choice(plan: Plan, beside: Plan) -> str:
    """Return what makes a plan another one than the one beside it, as `make` takes it."""
    tables, seeds = ",".join(plan.tables), ",".join(map(str, plan.seeds))
    parts = [f"TABLES={tables}"] * (plan.tables != beside.tables)
    return " ".join(parts + [f"SEEDS={seeds}"] * (plan.seeds != beside.seeds))


def _figure(plan: Plan, name: str) -> dict[str, str]:
    return {name: plan.study.figures[name].csv(plan)}


def describe(plan: Plan, findings: list[Finding], runs: pd.DataFrame) -> str:
    """Return the findings as lines, the worst first; many runs share one that is not wrong."""
    shown = {str(plan.runs_folder / str(path)): rows for path, rows in runs["rows"].items()}
    lines = []
    for level in LEVELS:
        places: dict[tuple[str, ...], list[str]] = {}
        for finding in (f for f in findings if f.level == level):
            alone = (finding.where,) if level in (WRONG, NOTE) else ()
            text = finding.text + (f"; {finding.remedy}" if finding.remedy else "")
            places.setdefault((text, *alone), []).append(finding.where)
        for (text, *_), where in places.items():
            more = f" and {len(where) - 1} more" if len(where) > 1 else ""
            shows = f" ({shown[where[0]]})" if level == WRONG and where[0] in shown else ""
            lines.append(f"{level}: {where[0]}{more}{shows}: {text}")
    finished = {str(plan.runs_folder / str(path)) for path in runs.index[runs["verified"].notna()]}
    wrong = {finding.where for finding in findings if finding.level == WRONG}
    files = {where for where in wrong if where.startswith(f"{plan.folder}/")}
    damaged = int((runs["status"] == "damaged").sum())
    lines.append(
        f"{len(finished)} of {len(runs)} runs finished: "
        f"{len(finished - wrong)} verified, {len(finished & wrong)} wrong"
        + (f", {damaged} damaged." if damaged else ".")
        + f" {len(files)} file{'s are' if len(files) > 1 else ' is'} wrong, too." * bool(files)
    )
    return "\n".join(lines)


def trustworthy(findings: list[Finding]) -> bool:
    """Whether no finding makes a number wrong."""
    return all(finding.level != WRONG for finding in findings)


def _compare(
    folder: Path, names: Sequence[str], texts: Callable[[], Mapping[str, str]]
) -> Iterator[tuple[str, Finding | None]]:
    """Yield each file that is there, and why it is not what `texts` gives, made only if any is."""
    # A plain `render` leaves out what takes long.
    what = " complexity" * (COMPLEXITY_CSV in names)
    remedy = f"`attention-ablation render{what}` writes it again"
    there = {name: str(folder / name) for name in names if (folder / name).exists()}
    try:
        expected = dict(zip(names, texts().values(), strict=True)) if there else {}
    except UserError as error:  # of another file that it is made from
        for where in there.values():
            yield where, Finding(WRONG, where, f"it cannot be made again: {error}")
        return
    for name, where in there.items():
        wrong = ""
        try:
            if read_text(folder / name) != expected[name]:
                wrong = "not what its runs give now: edited, old, or of other tables or seeds"
        except UserError as error:
            wrong = str(error)
        yield where, Finding(WRONG, where, wrong, remedy) if wrong else None
