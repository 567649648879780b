"""What `make tables` says at its end: tables in short, what is not there and why, and the page."""

import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tabulate import tabulate

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_csv, read_text
from attention_ablation.report.results import DASH, number, shown_digits
from attention_ablation.runs.folder import read_outcome
from attention_ablation.study.expand import Plan

WIDTH = 80  # of a terminal
MOST_ROWS = 20  # of all tables together; more are a wall, and the page has them
LONGEST_LABEL = 44
MOST_LINES = 10  # of what is not there
LISTED = textwrap.TextWrapper(
    WIDTH, initial_indent="  ", subsequent_indent="    ", max_lines=5, placeholder=" ...",
    break_long_words=False, break_on_hyphens=False,
)  # fmt: skip


def describe_results(plan: Plan) -> str:
    """Return what the rendered files hold, in lines for a terminal."""
    lines = ["", *_tables(plan), *_claims(plan), *_absent(plan)]
    page = plan.folder / "report.html"
    if page.exists():
        lines += ["", f"Open {page}; tables and figures are beside it."]
    return "\n".join(lines)


def _tables(plan: Plan) -> Iterator[str]:
    files = {name: plan.folder / f"tables/{name}.csv" for name in plan.tables}
    tables = {name: _records(file) for name, file in files.items() if file.exists()}
    if sum(map(len, tables.values())) > MOST_ROWS:
        seeds, counts = len(plan.seeds), []
        for name, records in tables.items():
            complete = sum(record["seeds"] == str(seeds) for record in records)
            counts.append(f"{complete} of {len(records)} in {name}")
        whose = f"all {seeds} seeds" if seeds > 1 else "their seed"
        text = f"Rows with {whose}: {', '.join(counts)}. They are in {plan.folder / 'tables'}."
        yield textwrap.fill(text, WIDTH, break_on_hyphens=False)
        return
    for name, records in tables.items():
        title = f"Table {number(name)}. {plan.study.tables[name].title}"
        yield from (_cut(title, WIDTH), _short(plan, name, records), "")
    if tables and plan.study.has_printed and not plan.follows_paper:
        tier = plan.config.tier
        yield f"Tier {tier} does not follow the paper: compare our rows with each other."


def _records(path: Path) -> list[dict[str, str]]:
    return [record for _, record in read_csv(path)[1]]


def _short(plan: Plan, table: str, records: list[dict[str, str]]) -> str:
    """Return a table's labels with the first number that is trained for, ours and the paper's."""
    metrics = plan.study.metrics
    columns = plan.study.tables[table].columns
    name = next((name for name in columns if not metrics[name].counted), columns[0])
    rows = [
        [
            _cut(record["label"], LONGEST_LABEL),
            _ours(record, name, shown_digits(plan, table, record["row"], metrics[name])),
            record[f"{name}_paper"] or DASH,
        ]
        for record in records
    ]
    align = ("left", "right", "right")
    headings = ["", metrics[name].title, "paper"]
    return str(tabulate(rows, headings, disable_numparse=True, colalign=align))


def _cut(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" ...")


def _ours(record: dict[str, str], name: str, digits: int) -> str:
    try:
        text = f"{float(record[name]):.{digits}f}"
    except ValueError:  # nothing, or how many diverged
        return record[name] or DASH
    spread = record.get(f"{name}_sd")
    return f"{text} ± {float(spread):.{digits}f}" if spread else text


def _claims(plan: Plan) -> Iterator[str]:
    """Yield how many of the claims' comparisons hold, where they are judged."""
    try:
        records = _records(plan.folder / "claims.csv")
    except UserError:
        return
    found = Counter(record["verdict"] for record in records if not record["published"])
    if plan.study.claims:
        judged = sorted(found.items(), key=lambda each: (each[0] == "not run", -each[1]))
        counts = ", ".join(f"{count} {verdict}" for verdict, count in judged)
        yield textwrap.fill(f"Comparisons of the claims: {counts}.", WIDTH)


def _absent(plan: Plan) -> Iterator[str]:
    """Yield a line for each training that did not complete and each file that was not written."""
    outcomes = {path: read_outcome(plan.runs_folder / path) for path in plan.runs}
    why = {"running": "another process trains it", "interrupted": "it goes on from its checkpoint"}
    lines = [
        f"{path}: {outcome.status}: {outcome.reason or why.get(outcome.status, 'see its log')}"
        for path, outcome in outcomes.items()
        if not outcome.metrics and outcome.status != "missing"
    ]
    ended = sum(outcome.metrics is not None for outcome in outcomes.values())
    if ended < len(outcomes):
        yield f"{ended} of {len(outcomes)} trainings ended with a result."
    lines += [f"{name}: not rendered: {reason}" for name, reason in _not_rendered(plan)]
    yield from map(LISTED.fill, lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        yield f"  and {len(lines) - MOST_LINES} more"
    if lines:
        yield "`make status` says more. Mend what failed and run the same command again."


def _not_rendered(plan: Plan) -> Iterator[tuple[str, str]]:
    files = {"complexity": "complexity.csv"}
    files |= {name: f"tables/{name}.md" for name in plan.tables}
    files |= {name: f"figures/{name}.svg" for name in plan.figures}
    files |= {"claims": "claims.md"} if plan.study.claims else {}
    for name, file in files.items():
        if (plan.folder / file).exists():
            continue
        with suppress(UserError):  # its job was not asked for, or waits for one that failed
            written = read_text(plan.folder / f"logs/{name}.log").split("\n")
            *_, last = "its log is empty", *filter(str.strip, written)
            yield name, last.removeprefix("attention-ablation: ")
