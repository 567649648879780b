"""Every number that the tables show, held to the folders of the runs that it came from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_text
from attention_ablation.evidence.complexity import COMPLEXITY_CSV, complexity_csv, count_rows
from attention_ablation.report.claims import CLAIMS_CSV, CLAIMS_MD, rendered_claims
from attention_ablation.report.collect import RUNS_CSV
from attention_ablation.report.html import REPORT, rendered_report
from attention_ablation.report.notes import conditions, confounds
from attention_ablation.report.tables import FORMS, rendered
from attention_ablation.runs.verify import LEVELS, NOTE, WRONG, Finding, check_run
from attention_ablation.study.expand import Plan


def verify(plan: Plan, runs: pd.DataFrame, *, weights: bool = True) -> list[Finding]:
    """Return all findings about a plan's runs, with their weights, and what is rendered of them.

    Every file that is there must be what the runs, or a new count of the networks, give now. Of
    figures that holds for their numbers; pictures are in the page as they are on the disk.
    """
    findings = [
        finding
        for path in plan.runs
        for finding in check_run(plan.runs_folder / path, weights=weights)
    ]
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
        for line in conditions(plan, table, runs):
            what = f"its runs were made under several conditions: {line}"
            findings.append(Finding(NOTE, table, what))
        unlike = confounds(plan, table, runs)
        for line in unlike:
            what = f"rows that are compared were not trained alike: {line}"
            findings.append(Finding(WRONG, table, what))
        if not unlike:  # else it is not rendered
            names = tuple(f"tables/{table}.{form}" for form in FORMS)
            made[names] = partial(rendered, plan, table, runs)
    for names, texts in made.items():
        findings += _compare(plan.folder, names, texts)
    return findings


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
) -> Iterator[Finding]:
    """Yield each file that is there and is not what `texts` gives now, made only if any is."""
    # A plain `render` leaves out what takes long.
    what = " complexity" * (COMPLEXITY_CSV in names)
    remedy = f"`attention-ablation render{what}` writes it again"
    there = [name for name in names if (folder / name).exists()]
    try:
        expected = dict(zip(names, texts().values(), strict=True)) if there else {}
    except UserError as error:  # of another file that it is made from
        for name in there:
            yield Finding(WRONG, str(folder / name), f"it cannot be made again: {error}")
        return
    for name in there:
        try:
            if read_text(folder / name) != expected[name]:
                wrong = "not what its runs give now: edited, old, or of other tables or seeds"
                yield Finding(WRONG, str(folder / name), wrong, remedy)
        except UserError as error:
            yield Finding(WRONG, str(folder / name), str(error), remedy)
