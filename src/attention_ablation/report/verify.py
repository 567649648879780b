"""Every number that the tables show, held to the folders of the runs that it came from."""

from collections.abc import Iterator

import pandas as pd

from attention_ablation.report.collect import collect
from attention_ablation.report.comparable import conditions, confounds
from attention_ablation.report.tables import rendered
from attention_ablation.study.expand import Plan
from attention_ablation.study.verify import LEVELS, NOTE, UNVERIFIABLE, WRONG, Finding, check_run


def verify(plan: Plan) -> list[Finding]:
    """Return all findings about a plan's runs, their weights too, and about its tables."""
    findings = [
        finding
        for path in plan.runs
        for finding in check_run(plan.runs_folder / path, weights=True)
    ]
    runs = collect(plan)
    for table in plan.tables:
        findings += _table(plan, table, runs)
    return findings


def describe(plan: Plan, findings: list[Finding]) -> str:
    """Return the findings as text, the worst first, a line each.

    What is the same for many runs, and does not make them wrong, is one line.
    """
    runs = collect(plan)
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
    except (TypeError, ValueError):  # an edit made a number text
        yield Finding(WRONG, table, "it cannot be rendered from what its runs say")
        return
    for kind, text in texts.items():
        path = plan.folder / "tables" / f"{table}.{kind}"
        if path.exists() and path.read_text() != text:
            what = "not what its runs give now: edited, old, or of another choice of seeds"
            yield Finding(WRONG, str(path), what, "`attention-ablation render` writes it again")
