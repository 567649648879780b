"""Every number that the tables show, held to the folders of the runs that it came from."""

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
        confounded = confounds(plan, table, runs)
        findings += [Finding(WRONG, table, f"compared rows differ: {x}") for x in confounded]
        findings += [
            Finding(NOTE, table, f"its runs were made under several conditions: {line}")
            for line in conditions(plan, table, runs)
        ]
        if confounded:
            continue  # it is not rendered
        for kind, text in rendered(plan, table, runs).items():
            path = plan.folder / "tables" / f"{table}.{kind}"
            if path.exists() and path.read_text() != text:
                findings.append(
                    Finding(
                        WRONG,
                        str(path),
                        "it is not what its runs give now: it was edited, is old, or shows another "
                        "choice of seeds",
                        "`attention-ablation render` writes it again",
                    )
                )
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
    return "\n".join([*lines, _summary(plan, findings, int(runs["verified"].notna().sum()))])


def trustworthy(findings: list[Finding]) -> bool:
    """Whether no finding makes a number wrong."""
    return all(finding.level != WRONG for finding in findings)


def _summary(plan: Plan, findings: list[Finding], finished: int) -> str:
    wrong = {f.where for f in findings if f.level == WRONG}
    runs = {str(plan.runs_folder / path) for path in plan.runs}
    open_ = sum(f.level == UNVERIFIABLE for f in findings)
    return (
        f"{finished} of {len(plan.runs)} runs finished: {finished - len(wrong & runs) - open_} "
        f"verified, {open_} not verifiable, {len(wrong & runs)} wrong; "
        f"{len(wrong - runs)} wrong tables."
    )
