"""From a cell of a table to the trainings, or the count, that it came from."""

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.detectors.record import Detector
from attention_ablation.evidence.complexity import COMPLEXITY_CSV, Counts, read_counts
from attention_ablation.networks.record import Backbone
from attention_ablation.report.collect import collect
from attention_ablation.report.results import table_results
from attention_ablation.runs.folder import LOG
from attention_ablation.runs.records import Metrics
from attention_ablation.spec.spec import Run
from attention_ablation.study.config import Row
from attention_ablation.study.confounds import flatten
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import COUNTED

WIDTH = 100
FINISHED = ("completed", "diverged")
PATHS = ("folder", "log", "file")
PACKAGES = ("attention_ablation", "python", "torch", "torchvision", "numpy")
FACTS = ("status", "reason", "verified", *Metrics.model_fields)


def find_cell(plan: Plan, table: str, row: str, metric: str) -> dict[str, Any]:
    """Return a cell's record with its heading, and those of its runs or of its count.

    `paper_text` is None in a study without a paper.
    """
    where = f"study {plan.study.name}"
    if table not in plan.study.tables:
        raise unknown("table", table, plan.study.tables, where)
    if table not in plan.tables:
        raise UserError(
            f"{table}: expected one of the selected tables, {', '.join(plan.tables)}; select it "
            "with --set tables=all."
        )
    rows = {row.key: row for row in plan.rows(table)}
    if row not in rows:
        raise unknown("row", row, rows, f"{where}: {table}")
    columns = plan.study.tables[table].columns
    if metric not in columns:
        raise unknown("metric", metric, columns, f"{where}: {table}")
    # Without reading the folders of other tables' runs.
    specs = {place: spec for place, spec in plan.specs.items() if place[0] == table}
    frame = collect(dataclasses.replace(plan, tables=[table], specs=specs))
    counts = read_counts(plan)
    (cell,) = (
        line.cells[metric]
        for line in table_results(plan, table, frame, counts).rows
        if line.row.key == row
    )
    known = plan.study.metrics[metric]
    runs = [run_record(plan, run, frame.loc[run.path].to_dict(), known.source) for run in cell.runs]
    facts = {"table": table, "row": row, "label": rows[row].label, "metric": metric}
    count = _count(plan, rows[row], metric, cell.value, counts) if known.counted else None
    paper = cell.paper_text if plan.study.has_printed else None
    facts |= vars(cell) | {"paper_text": paper, "heading": known.title}
    return facts | {"unit": known.unit, "runs": runs, "count": count}


def run_record(
    plan: Plan, run: Run, line: Mapping[Any, Any], source: str | None = None
) -> dict[str, Any]:
    """Return what its line of `collect` says of a run; what was not recorded is None.

    `source` is the column of `value`, the cell's number.
    """
    known: dict[str | None, Any] = {
        str(key): value.item() if isinstance(value, np.generic) else value  # JSON knows no numpy
        for key, value in line.items()
        if pd.notna(value)
    }
    folder = plan.runs_folder / run.path
    return {
        "folder": str(folder),
        "log": str(folder / LOG),
        "seed": run.seed,
        "value": known.get(source),
        "spec": run.spec.model_dump(mode="json", exclude_none=True),
        **{name: known.get(name) for name in FACTS},
    }


def _count(
    plan: Plan, row: Row, metric: str, value: float | None, counts: Counts
) -> dict[str, Any]:
    """Return how a cell was counted on the network of full size, and the verdict."""
    found = counts.get((row.table, row.key))
    size = plan.study.counted_on.size(row.detector)
    what = COUNTED[plan.study.metrics[metric].source]
    parts = {
        "backbone": Backbone(name=row.backbone, front_end=row.front_end),
        "detector": Detector(name=row.detector) if row.detector else None,
        "attention": plan.study.attentions[row.attention],
    }
    explained = plan.study.explaining(row, metric)
    return {
        "value": value,
        "network": {
            name: part.model_dump(mode="json", exclude_none=True)
            for name, part in parts.items()
            if part
        },
        "how": f"{what}, of the full-size network at {size.image_size} px and {size.classes} "
        "classes, whatever the tier; nothing was trained for it",
        "verdict": found.verdict if found else None,
        "explanation": " ".join(plan.study.discrepancies[d].explanation for d in explained) or None,
        "source": str(plan.folder / COMPLEXITY_CSV),
    }


def as_json(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, indent=2, allow_nan=False, ensure_ascii=False)


def as_text(cell: Mapping[str, Any]) -> str:
    """Return what `find_cell` returned as lines for a person."""
    count, paper = cell["count"], cell["paper_text"]
    n = f" (n = {cell['n']} of {len(cell['runs'])})" * (count is None)
    lines = [
        f"{cell['table']}, {cell['label']}: {cell['heading']}",
        f"  ours   {cell['text']}{n}",
        *[f"  paper  {paper}"] * bool(paper),
    ]
    if count:
        exact = count["value"]
        counted = "not counted yet; `make tables` counts it" if exact is None else f"{exact:.6f}"
        facts = [
            ("counted", count["how"]),
            *((part, _listed(keys)) for part, keys in count["network"].items()),
            ("exact", counted),
            *[("verdict", count["verdict"])] * bool(paper and count["verdict"]),
            ("file", count["source"]),
            *[("why", count["explanation"])] * bool(count["explanation"]),
        ]
        lines += ["", *_wrapped(facts)]
    for run in cell["runs"]:
        outcome = [str(run["status"])]
        if run["value"] is not None:
            outcome.append(f"{run['value']:.4g}" + f" {cell['unit']}" * bool(cell["unit"]))
        outcome += [run["reason"]] * bool(run["reason"])
        parts = ("backbone", "detector", "attention", "recipe")
        spec = [(part, _listed(run["spec"][part])) for part in parts if part in run["spec"]]
        lines += ["", f"seed {run['seed']}: {', '.join(outcome)}"]
        lines += _wrapped([*spec, *run_facts(run)])
    return "\n".join(lines)


def run_facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return where and how a run was made, as names and texts; its spec and outcome aside."""
    facts = [("folder", run["folder"]), ("log", run["log"])]
    if run["status"] not in FINISHED:
        return facts
    dirty = " with uncommitted changes" * bool(run["git_dirty"])
    shares = f"processes {_number(run['processes'])}, threads of each {_number(run['threads'])}"
    memory = f"{_number(run['peak_memory_mb'])} MB at most"
    if run["peak_device_memory_mb"] is not None:
        memory += f", {_number(run['peak_device_memory_mb'])} MB on the device"
    energy = f", {_number(run['joules'])} J of the GPU" if run["joules"] is not None else ""
    wall, computing = _number(run["seconds"]), _number(run["compute_seconds"])
    speed = _number(run["images_per_second"])
    versions = ", ".join(f"{name} {run[name]}" for name in PACKAGES if run[name])
    composed = run["dataset_composed_with"]
    composed = f", composed with {composed}" if composed else ""
    return [
        *facts,
        ("verified", run["verified"] or "-"),
        ("code", (run["git_commit"] or "not recorded") + dirty),
        ("versions", versions or "not recorded"),
        ("device", f"{run['device'] or 'not recorded'}; {shares}"),
        ("time", f"{wall} s wall, {computing} s computing, {speed} images/s{energy}"),
        ("memory", memory),
        ("data", (run["dataset_fingerprint"] or "not recorded") + composed),
    ]


def _listed(keys: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in flatten(keys).items()) or "none"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{round(value, 1):.15g}"


def _wrapped(facts: list[tuple[str, str]]) -> list[str]:
    wrap = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    wrap.subsequent_indent = " " * 12
    lines = []
    for name, text in facts:
        wrap.initial_indent = f"  {name:9} "
        # A path stays on one line, to be copied.
        lines += [wrap.initial_indent + text] if name in PATHS else wrap.wrap(text)
    return lines
