"""Every number that the tables show, held to the folders of the runs that it came from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_text
from attention_ablation.evidence.counted import COMPLEXITY_CSV
from attention_ablation.report.claims import CLAIMS_CSV, CLAIMS_MD, rendered_claims
from attention_ablation.report.collect import RUNS_CSV, runs_csv
from attention_ablation.report.comparable import conditions, confounds
from attention_ablation.report.html import REPORT, rendered_report
from attention_ablation.report.tables import rendered
from attention_ablation.runs.verify import LEVELS, NOTE, UNVERIFIABLE, WRONG, Finding, check_run
from attention_ablation.study.expand import Plan


def verify(plan: Plan, runs: pd.DataFrame) -> list[Finding]:
    """Return all findings about a plan's runs, their weights too, and what is rendered of them.

    Every file that is there must be what the runs, or a new count of the networks, give now. Of
    figures that holds for their numbers; pictures are in the page as they are on the disk.
    """
    findings = [
        finding
        for path in plan.runs
        for finding in check_run(plan.runs_folder / path, weights=True)
    ]
    findings += _complexity(plan)
    for table in plan.tables:
        findings += _table(plan, table, runs)
    findings += _files(plan.folder, [RUNS_CSV], lambda: {RUNS_CSV: runs_csv(runs)})
    if plan.study.claims:
        names = [CLAIMS_CSV, CLAIMS_MD]
        findings += _files(plan.folder, names, lambda: rendered_claims(plan, runs))
    for name in plan.figures:
        if plan.study.figures[name].numbers:
            path = f"figures/{name}.csv"
            findings += _files(plan.folder, [path], partial(_figure, plan, name, path))
    findings += _files(plan.folder, [REPORT], lambda: {REPORT: rendered_report(plan, runs)})
    return findings


def _figure(plan: Plan, name: str, path: str) -> dict[str, str]:
    return {path: plan.study.figures[name].csv(plan)}


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
    damaged = int((runs["status"] == "damaged").sum())
    return (
        f"{len(finished)} of {len(runs)} runs finished: "
        f"{len(finished - wrong - unverifiable)} verified, {len(unverifiable)} not verifiable, "
        f"{len(finished & wrong)} wrong" + (f", {damaged} damaged." if damaged else ".")
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
    names = [f"{table}.{kind}" for kind in ("csv", "md", "tex")]

    def texts() -> dict[str, str]:
        return {f"{table}.{kind}": text for kind, text in rendered(plan, table, runs).items()}

    yield from _files(plan.folder / "tables", names, texts)


def _complexity(plan: Plan) -> list[Finding]:
    """Return whether complexity.csv is what a new count of the networks, of 10 s, gives."""

    def texts() -> dict[str, str]:
        from attention_ablation.evidence.complexity import complexity_csv  # it imports torch

        return {COMPLEXITY_CSV: complexity_csv(plan.study)}

    again = "attention-ablation render complexity"
    return list(_files(plan.folder, [COMPLEXITY_CSV], texts, again))


def _files(
    folder: Path,
    names: Sequence[str],
    texts: Callable[[], Mapping[str, str]],
    again: str = "attention-ablation render",
) -> Iterator[Finding]:
    """Yield each file that is there and is not what `texts` gives now, made only if any is."""
    remedy = f"`{again}` writes it again"
    there = [name for name in names if (folder / name).exists()]
    try:
        expected = texts() if there else {}
    except UserError as error:  # of another file that it is made from
        for name in there:
            yield Finding(WRONG, str(folder / name), f"it cannot be made again: {error}")
        return
    for name in there:
        try:
            if read_text(folder / name) != expected[name]:
                what = "not what its runs give now: edited, old, or of other tables or seeds"
                yield Finding(WRONG, str(folder / name), what, remedy)
        except UserError as error:
            yield Finding(WRONG, str(folder / name), str(error), remedy)
