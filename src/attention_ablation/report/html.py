"""report.html: every table, figure and claim of a study in one file that needs no network."""

import base64
import json
from collections import Counter
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from attention_ablation import __version__
from attention_ablation.analysis.claims import JudgedPair, ledger
from attention_ablation.analysis.counted import COMPLEXITY_CSV
from attention_ablation.report.comparable import confounds
from attention_ablation.report.tables import (
    DASH,
    HEADINGS,
    decimals,
    display_frame,
    table_frame,
    table_notes,
)
from attention_ablation.study.expand import Plan

PAGE = files("attention_ablation.report") / "page"
BEST = "**"
MINUS = "\N{MINUS SIGN}"
# What a run's provenance shows: a column of the runs frame, its name on the page, and its unit.
FACTS = (
    ("status", "status", ""),
    ("reason", "reason", ""),
    ("verified", "verified", ""),
    ("seed", "seed", ""),
    ("validation_top1_error", "top-1 error", " %"),
    ("validation_top5_error", "top-5 error", " %"),
    ("git_commit", "code, git commit", ""),
    ("git_dirty", "uncommitted changes", ""),
    ("device", "device", ""),
    ("processes", "processes", ""),
    ("threads", "CPU threads", ""),
    ("seconds", "wall time", " s"),
    ("compute_seconds", "of it computing", " s"),
    ("images_per_second", "training", " images/s"),
    ("peak_memory_mb", "peak memory of the process", " MB"),
    ("dataset_fingerprint", "data set's fingerprint", ""),
    ("python", "Python", ""),
    ("torch", "torch", ""),
    ("torchvision", "torchvision", ""),
    ("attention_ablation", "attention-ablation", ""),
)
ENVIRONMENT = ("device", "git_commit", "git_dirty", "python", "torch", "torchvision", "processes")


def write_report(plan: Plan, runs: pd.DataFrame) -> None:
    """Write `report.html` from what is there; what is missing is said to be."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (PAGE / "report.html.j2").read_text()
    )
    cells: dict[str, dict[str, Any]] = {}
    counts = runs["status"].value_counts()
    page = template.render(
        study=plan.study,
        tier=plan.config.tier,
        summary=plan.summary,
        state="Runs: " + ", ".join(f"{n} {status}" for status, n in counts.items()) + ".",
        limits=plan.tier.limits,
        claims=_claims(plan, runs),
        tables=[_table(plan, table, runs, cells) for table in plan.tables],
        figures=[_figure(plan, name) for name in plan.figures],
        discrepancies=[
            {"name": name, "number": _number(d.table), "explanation": d.explanation}
            for name, d in plan.study.discrepancies.items()
            if d.table in plan.tables
        ],
        blocks=[_complexity(plan), _runs(runs), _environment(runs)],
        made_by=f"Made by attention-ablation {__version__}.",
        css=Markup((PAGE / "report.css").read_text()),
        script=Markup((PAGE / "report.js").read_text()),
        data=_json({"cells": cells, "runs": {p: _provenance(plan, runs, p) for p in runs.index}}),
    )
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / "report.html").write_text(page)


def _table(
    plan: Plan, table: str, runs: pd.DataFrame, cells: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return what the page shows of a table; `cells` gains the provenance of each of ours."""
    entry, frame = plan.study.tables[table], table_frame(plan, table, runs)
    if refused := confounds(plan, table, runs):
        return {
            "name": table,
            "number": _number(table),
            "title": entry.title,
            "section": entry.section,
            "headings": ["Architecture"],
            "rows": [{"label": row.label, "cells": []} for row in plan.rows(table)],
            "notes": [
                "Not shown: rows that are compared here were not trained alike.",
                *refused,
            ],
        }
    display = display_frame(plan, table, frame, runs, BEST + "{}" + BEST)
    rows = []
    for row, line, shown in zip(
        plan.rows(table), frame.to_dict("records"), display.to_dict("records"), strict=True
    ):
        record = []
        for metric in entry.columns:
            heading = HEADINGS[metric]
            ours, printed = line[metric], row.printed.get(metric)
            paper = float(printed or "nan")
            # Of what both show, so that cells that agree differ by 0.
            printed_digits = len((printed or "").partition(".")[2])
            digits = min(decimals(metric, plan.specs[table, row.key]), printed_digits)
            gap = float("nan") if isinstance(ours, str) else round(ours, digits) - paper
            text = shown[heading, "ours"]
            identifier = f"{table} {row.key} {metric}"
            cells[identifier] = {
                "title": f"Table {_number(table)}, {row.label}: {heading}",
                "text": _explanation(line, metric, text.strip(BEST), printed),
                "runs": [run.path for run in plan.row_runs(table, row.key)]
                if metric.endswith("error")
                else [],
            }
            record += [
                _cell("ours", text, ours, identifier),
                _cell("paper", shown[heading, "paper"], paper),
                _cell("difference", _signed(gap, digits), gap),
            ]
        rows.append({"label": shown["Architecture", ""], "cells": record})
    headings = [
        text
        for metric in entry.columns
        for text in (HEADINGS[metric], "paper", f"ours {MINUS} paper")
    ]
    return {
        "name": table,
        "number": _number(table),
        "title": entry.title,
        "section": entry.section,
        "headings": ["Architecture", *headings],
        "rows": rows,
        # The last one, the tier's limits, stands at the top of the page.
        "notes": table_notes(plan, table, frame, runs)[:-1],
    }


def _claims(plan: Plan, runs: pd.DataFrame) -> dict[str, Any] | None:
    """Return what the page shows of the ledger, None where the study has none."""
    if not plan.study.claims:
        return None
    judged = ledger(plan, runs)
    counts = Counter(claim.verdict for claim in judged.claims)
    wrong = sum(claim.paper_verdict == "does not hold" for claim in judged.claims)
    return {
        "summary": f"Of {len(judged.claims)} claims our runs leave "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        + f". {wrong} do not hold in the paper's own cells.",
        "method": judged.method,
        "claims": [
            {
                "key": claim.key,
                "place": claim.claim.place,
                "text": " ".join(claim.claim.says.split()),
                "verdict": claim.verdict,
                "paper_verdict": claim.paper_verdict,
                "comparisons": [_comparison(p) for p in (*claim.pairs, *claim.published)],
            }
            for claim in judged.claims
        ],
    }


def _comparison(judged: JudgedPair) -> dict[str, str]:
    unit = _unit(judged)
    ours: str = judged.verdict + f": {judged.reason}" * bool(judged.reason)
    if judged.difference is not None:
        ours += f" ({judged.difference:+.3g}{unit}"
        if judged.interval:
            ours += f", 95 % interval {judged.interval[0]:.3g} to {judged.interval[1]:.3g}"
        if judged.p_value is not None and judged.n > 1:
            ours += f", p = {judged.p_value:.2g} after correction"
        ours += f", n = {judged.n})"
    paper: str = judged.paper_verdict
    if judged.paper_difference is not None:
        paper += f" ({judged.paper_difference:+.3g}{unit})"
    text = f"{judged.pair.table}, {judged.pair.metric}: {judged.text}"
    return {"text": text, "ours": ours.replace("-", MINUS), "paper": paper.replace("-", MINUS)}


def _unit(judged: JudgedPair) -> str:
    if judged.pair.comparison.predicate == "at-most-more":
        return " %"
    return " points" if judged.pair.metric.endswith("error") else ""


def _cell(kind: str, text: str, value: Any, identifier: str = "") -> dict[str, Any]:
    best = text.startswith(BEST)
    number = float("nan") if isinstance(value, str) else float(value)
    return {
        "kind": kind,
        "text": text.replace(BEST, ""),
        "best": best,
        "value": "" if pd.isna(number) else number,
        "id": identifier,
    }


def _signed(gap: float, digits: int) -> str:
    if pd.isna(gap):
        return DASH
    text = f"{abs(gap):.{digits}f}"
    return text if not float(text) else ("+" if gap > 0 else MINUS) + text


def _explanation(line: dict[Any, Any], metric: str, text: str, printed: str | None) -> str:
    paper = f"The paper prints {printed}." if printed else "The paper prints none."
    if text == DASH:
        return f"Ours: not there yet. {paper}"
    if metric.endswith("error"):
        if text.startswith("diverged"):
            return f"Ours: {text} runs, so there is no mean. {paper} The runs:"
        seeds = line["seeds"]
        of = f"mean and standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
        return f"Ours: {text} %, {of}, last epoch, on the validation set. {paper} The runs:"
    what = "parameters in millions"
    if metric == "gflops":
        what = "multiply-accumulates of convolutions and linear layers, in 1e9"
    return f"Ours: {text}: {what}; the full-size network, 224 px, 1000 classes. {paper}"


def _figure(plan: Plan, name: str) -> dict[str, Any]:
    entry, path = plan.study.figures[name], plan.folder / "figures" / f"{name}.svg"
    image = ""
    if path.exists():
        image = "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
    number = name.removeprefix("figure")
    return {"name": name, "number": number, "title": entry.title, "section": entry.section,
            "image": image}  # fmt: skip


def _complexity(plan: Plan) -> dict[str, Any]:
    path, headings = plan.folder / COMPLEXITY_CSV, ["Row", "Table", "Params", "paper (M)", "GFLOPs",
                                                    "paper", "Verdict"]  # fmt: skip
    rows = []
    if path.exists():
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = [
            [line["row"], _number(line["table"]), f"{int(line['params']):,}",
             line["params_m_paper"] or DASH, line["gflops"], line["gflops_paper"] or DASH,
             line["verdict"]]
            for line in frame.to_dict("records")
        ]  # fmt: skip
    return {
        "name": "complexity", "title": "Parameters and GFLOPs of every row", "headings": headings,
        "rows": rows, "numbers": [2, 3, 4, 5],
        "text": "Of the full-size networks, 224 px, 1000 classes; GFLOPs are multiply-accumulates. "
        "'match': equal to what the paper prints when rounded to its digits.",
    }  # fmt: skip


def _runs(runs: pd.DataFrame) -> dict[str, Any]:
    columns = {
        "status": "Status", "validation_top1_error": "Top-1 error (%)",
        "validation_top5_error": "Top-5 error (%)", "train_loss": "Training loss",
        "seconds": "Wall time (s)", "images_per_second": "Images/s", "rows": "Shown as",
    }  # fmt: skip
    rows = [
        [path, *(_fact(line.get(name)) for name in columns)]
        for path, line in zip(runs.index, runs.to_dict("records"), strict=True)
    ]
    return {"name": "runs", "title": "All runs", "headings": ["Run and seed", *columns.values()],
            "rows": rows, "numbers": [2, 3, 4, 5, 6], "text": ""}  # fmt: skip


def _environment(runs: pd.DataFrame) -> dict[str, Any]:
    names = [name for name in ENVIRONMENT if name in runs]
    rows = []
    if names:
        counts = runs[runs["status"] == "completed"].groupby(names, dropna=False).size()
        for key, count in counts.items():
            values: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
            rows.append([str(count), *(_fact(value) for value in values)])
    titles = {column: title for column, title, _ in FACTS}
    headings = ["Runs", *(titles[name] for name in names)]
    return {"name": "environment", "title": "Where the runs were made", "headings": headings,
            "rows": rows, "numbers": [], "text": ""}  # fmt: skip


def _provenance(plan: Plan, runs: pd.DataFrame, path: str) -> dict[str, Any]:
    line = runs.loc[path]
    facts = [
        [title, _fact(line[column]) + unit]
        for column, title, unit in FACTS
        if column in line and pd.notna(line[column])
    ]
    facts.append(["folder", str(plan.runs_folder / path)])
    facts.append(["log", str(plan.runs_folder / path / "train.log")])
    spec = plan.runs[path].spec.model_dump(mode="json", exclude_none=True)
    return {"facts": facts, "spec": json.dumps(spec, indent=2)}


def _fact(value: Any) -> str:
    if value is None or pd.isna(value):
        return DASH
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
