"""Every number that the tables show, held to the folders of the runs that it came from."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from attention_ablation.report.claims import rendered_claims
from attention_ablation.report.collect import RUNS_CSV, runs_csv
from attention_ablation.report.comparable import conditions, confounds
from attention_ablation.report.tables import rendered
from attention_ablation.study.expand import Plan
from attention_ablation.study.verify import LEVELS, NOTE, UNVERIFIABLE, WRONG, Finding, check_run

# What an edit that made a number text raises.
UNREADABLE = (TypeError, ValueError)


def verify(plan: Plan, runs: pd.DataFrame) -> list[Finding]:
    """Return all findings about a plan's runs, their weights too, tables, runs.csv and ledger.

    Figures and the page are not held to anything: `attention-ablation render` draws them again.
    """
    findings = [
        finding
        for path in plan.runs
        for finding in check_run(plan.runs_folder / path, weights=True)
    ]
    for table in plan.tables:
        findings += _table(plan, table, runs)
    findings += _files({plan.folder / RUNS_CSV: runs_csv(runs)})
    if plan.study.claims:
        findings += _ledger(plan, runs)
    return findings


def describe(plan: Plan, findings: list[Finding], runs: pd.DataFrame) -> str:
    """Return the findings as text, the worst first, a line each.

    What is the same for many runs, and does not make them wrong, is one line.
    """
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
    return "\n".join([*lines, _summary(plan, findings, runs)])


def trustworthy(findings: list[Finding]) -> bool:
    """Whether no finding makes a number wrong."""
    return all(finding.level != WRONG for finding in findings)


def _summary(plan: Plan, findings: list[Finding], runs: pd.DataFrame) -> str:
    finished = {str(plan.runs_folder / str(path)) for path in runs.index[runs["verified"].notna()]}
    wrong, unverifiable = (
        {finding.where for finding in findings if finding.level == level}
        for level in (WRONG, UNVERIFIABLE)
    )
    return (
        f"{len(finished)} of {len(runs)} runs finished: "
        f"{len(finished - wrong - unverifiable)} verified, {len(unverifiable)} not verifiable, "
        f"{len(finished & wrong)} wrong."
    )


def _table(plan: Plan, table: str, runs: pd.DataFrame) -> Iterator[Finding]:
    """Yield what is wrong with a table's comparisons and with its files."""
    confounded = confounds(plan, table, runs)
    for line in confounded:
        yield Finding(WRONG, table, f"rows that are compared were not trained alike: {line}")
    for line in conditions(plan, table, runs):
        yield Finding(NOTE, table, f"its runs were made under several conditions: {line}")
    if confounded:
        return  # it is not rendered
    try:
        texts = rendered(plan, table, runs)
    except UNREADABLE:
        yield Finding(WRONG, table, "it cannot be rendered from what its runs say")
        return
    yield from _files(
        {plan.folder / "tables" / f"{table}.{kind}": text for kind, text in texts.items()}
    )


def _ledger(plan: Plan, runs: pd.DataFrame) -> Iterator[Finding]:
    """Yield what is wrong with the ledger's files."""
    try:
        texts = rendered_claims(plan, runs)
    except UNREADABLE:
        yield Finding(WRONG, "claims", "they cannot be judged by what their runs say")
        return
    yield from _files({plan.folder / name: text for name, text in texts.items()})


def _files(texts: dict[Path, str]) -> Iterator[Finding]:
    """Yield each file that is there and is not what its runs give now."""
    for path, text in texts.items():
        if path.exists() and path.read_text("utf-8") != text:
            what = "not what its runs give now: edited, old, or of other tables or seeds"
            yield Finding(WRONG, str(path), what, "`attention-ablation render` writes it again")
