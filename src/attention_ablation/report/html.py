"""report.html: every table, figure and claim of a study in one file that needs no network."""

import base64
import json
import re
from contextlib import suppress
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from attention_ablation import __version__
from attention_ablation.base.io import Missing, read_bytes, write_text
from attention_ablation.evidence.counted import counted_lines
from attention_ablation.report.claims import page_claims
from attention_ablation.report.html_tables import page_table
from attention_ablation.report.numbers import DASH
from attention_ablation.report.provenance import run_record
from attention_ablation.report.where import run_facts
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import KINDS, MEASURED

REPORT = "report.html"
PAGE = files("attention_ablation.report") / "page"
# What runs may differ in: a column of the runs frame, and its name on the page.
ENVIRONMENT = {
    "device": "Device", "git_commit": "Code, git commit", "git_dirty": "Uncommitted changes",
    "python": "Python", "torch": "torch", "torchvision": "torchvision", "processes": "Processes",
}  # fmt: skip
DECIMALS = {"train_loss": 3, "seconds": 1, "images_per_second": 1}


def write_report(plan: Plan, runs: pd.DataFrame) -> None:
    """Write `report.html` from what is there; what is missing is said to be."""
    write_text(plan.folder / REPORT, rendered_report(plan, runs))


def rendered_report(plan: Plan, runs: pd.DataFrame) -> str:
    """Return the text of `report.html`."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (PAGE / "report.html.j2").read_text("utf-8")
    )
    cells: dict[str, dict[str, Any]] = {}
    counts = runs["status"].value_counts()
    return template.render(
        study=plan.study,
        tier=plan.config.tier,
        summary=plan.summary,
        state="Runs: " + ", ".join(f"{n} {status}" for status, n in counts.items()) + ".",
        limits=plan.tier.limits,
        claims=page_claims(plan, runs),
        tables=[page_table(plan, table, runs, cells) for table in plan.tables],
        figures=[_figure(plan, name) for name in plan.figures],
        discrepancies=[
            {"name": name, "number": _number(d.table), "explanation": d.explanation}
            for name, d in plan.study.discrepancies.items()
            if d.table in plan.tables
        ],
        blocks=[_complexity(plan), _runs(runs), _environment(runs)],
        made_by=f"Made by attention-ablation {__version__}.",
        css=Markup((PAGE / "report.css").read_text("utf-8")),
        script=Markup((PAGE / "report.js").read_text("utf-8")),
        data=_json({"cells": cells, "runs": {p: _provenance(plan, runs, p) for p in runs.index}}),
    )


def _figure(plan: Plan, name: str) -> dict[str, Any]:
    entry, image = plan.study.figures[name], ""
    with suppress(Missing):
        svg = read_bytes(plan.folder / "figures" / f"{name}.svg")
        image = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    number = name.removeprefix("figure")
    heading = f"Figure {number}. {entry.title}" if number.isdigit() else entry.title
    short = re.sub(r"(?<=[a-z])(?=\d)", " ", name.replace("-", " ")).capitalize()
    return {"name": name, "short": short, "heading": heading, "title": entry.title,
            "section": entry.section, "image": image}  # fmt: skip


def _complexity(plan: Plan) -> dict[str, Any]:
    headings = ["Row", "Table", "Params", "paper (M)", "GFLOPs", "paper", "Verdict"]
    rows = [
        [line["row"], _number(line["table"]), f"{int(line['params']):,}",
         line["params_m_paper"] or DASH, line["gflops"] or DASH, line["gflops_paper"] or DASH,
         line["verdict"]]
        for line in counted_lines(plan).to_dict("records")
    ]  # fmt: skip
    return {
        "name": "complexity", "title": "Parameters and GFLOPs of every row", "headings": headings,
        "rows": rows, "numbers": [2, 3, 4, 5],
        "text": "Of the full-size networks, 224 px, 1000 classes, and of detectors with the "
        "classes of the paper's data set; GFLOPs are multiply-accumulates. "
        "'match': equal to what the paper prints when rounded to its digits.",
    }  # fmt: skip


def measured(runs: pd.DataFrame) -> dict[str, str]:
    """Return the columns of what trainings came to, with their headings, that any run has."""
    headings = {f"validation_{name}": KINDS[name].heading for name in MEASURED}
    return {name: heading for name, heading in headings.items() if name in runs}


def _runs(runs: pd.DataFrame) -> dict[str, Any]:
    columns = {
        "status": "Status", **measured(runs), "train_loss": "Training loss",
        "seconds": "Wall time (s)", "images_per_second": "Images/s", "rows": "Shown as",
    }  # fmt: skip
    rows = [
        [path, *(_fact(line.get(name), DECIMALS.get(name)) for name in columns)]
        for path, line in zip(runs.index, runs.to_dict("records"), strict=True)
    ]
    return {"name": "runs", "title": "All runs", "headings": ["Run and seed", *columns.values()],
            "rows": rows, "numbers": list(range(2, len(columns))), "text": ""}  # fmt: skip


def _environment(runs: pd.DataFrame) -> dict[str, Any]:
    names = [name for name in ENVIRONMENT if name in runs]
    rows = []
    if names:
        counts = runs[runs["status"] == "completed"].groupby(names, dropna=False).size()
        for key, count in counts.sort_values(ascending=False, kind="stable").items():
            values: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
            facts = dict(zip(names, map(_fact, values), strict=True))
            if "git_commit" in facts:
                facts["git_commit"] = facts["git_commit"][:12]
            rows.append([str(count), *facts.values()])
    headings = ["Runs", *(ENVIRONMENT[name] for name in names)]
    return {"name": "environment", "title": "Where the runs were made", "headings": headings,
            "rows": rows, "numbers": [0], "text": ""}  # fmt: skip


def _provenance(plan: Plan, runs: pd.DataFrame, path: str) -> dict[str, Any]:
    line = runs.loc[path].to_dict()
    record = run_record(plan, plan.runs[path], line)
    outcome = [("status", record.status + (f": {record.reason}" if record.reason else ""))]
    for name, heading in measured(runs).items():
        if pd.notna(line[name]):
            outcome.append((heading.removesuffix(" (%)"), f"{_fact(line[name])} %"))
    return {
        "facts": [*outcome, *run_facts(record)],
        "spec": json.dumps(record.spec, indent=2),
    }


def _fact(value: Any, decimals: int | None = None) -> str:
    if value is None or pd.isna(value):
        return DASH
    if decimals is not None and not isinstance(value, str):
        return f"{value:.{decimals}f}"
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)


def _json(data: dict[str, Any]) -> Markup:
    # `</script>` inside a text would end the element.
    return Markup(json.dumps(data).replace("<", "\\u003c"))


def _number(name: str) -> str:
    return name.removeprefix("table")
