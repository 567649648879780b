"""A cell and the runs, or the count, that it came from, for a person or a program to read."""

import dataclasses
import json
import textwrap
from typing import Any

from attention_ablation.report.provenance import Cell, Count, RunRecord
from attention_ablation.study.confounds import flatten
from attention_ablation.study.metrics import KINDS

WIDTH = 100
FINISHED = ("completed", "diverged")
PATHS = ("folder", "log")


def as_json(cell: Cell) -> str:
    """Return a cell and its runs as JSON, in the keys of the records above."""
    return json.dumps(dataclasses.asdict(cell), indent=2, allow_nan=False, ensure_ascii=False)


def as_text(cell: Cell) -> str:
    """Return a cell and its runs as lines for a person."""
    heading = KINDS[cell.metric].heading
    n = f" (n = {cell.n} of {cell.seeds})" * (cell.count is None)
    lines = [
        f"{cell.table}, {cell.label}: {heading}",
        f"  ours   {cell.shown}{n}",
        f"  paper  {cell.printed or 'prints none'}",
    ]
    if cell.count:
        lines += ["", *_count_lines(cell.count)]
    for record in cell.runs:
        lines += ["", *_run_lines(record)]
    return "\n".join(lines)


def run_facts(run: RunRecord) -> list[tuple[str, str]]:
    """Return where and how a run was made, as names and texts; its spec and outcome aside."""
    facts = [("folder", run.folder), ("log", run.log)]
    if run.status not in FINISHED:
        return facts
    dirty = " with uncommitted changes" * bool(run.git_dirty)
    shares = f"processes {_number(run.processes)}, threads of each {_number(run.threads)}"
    device_memory = (
        f", {_number(run.peak_device_memory_mb)} MB on the device"
        if run.peak_device_memory_mb is not None
        else ""
    )
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    composed = f", composed with {run.dataset_composed_with}" * bool(run.dataset_composed_with)
    return [
        *facts,
        ("verified", run.verified or "-"),
        ("code", (run.git_commit or "not recorded") + dirty),
        ("versions", versions or "not recorded"),
        ("device", f"{run.device or 'not recorded'}; {shares}"),
        (
            "time",
            f"{_number(run.seconds)} s wall, {_number(run.compute_seconds)} s computing, "
            f"{_number(run.images_per_second)} images/s",
        ),
        ("memory", f"{_number(run.peak_memory_mb)} MB at most{device_memory}"),
        ("data", (run.dataset_fingerprint or "not recorded") + composed),
    ]


def _count_lines(count: Count) -> list[str]:
    lines = [
        *_wrapped("counted", count.how),
        *(f"  {part:9} {_listed(keys)}" for part, keys in count.network.items()),
        f"  {'exact':9} {'-' if count.value is None else f'{count.value:.6f}'}",
        f"  {'verdict':9} {count.verdict or 'not counted yet; `make tables` counts it'}",
        f"  {'file':9} {count.source}",
    ]
    return lines + (_wrapped("why", count.explanation) if count.explanation else [])


def _run_lines(run: RunRecord) -> list[str]:
    lines = [
        f"seed {run.seed}: {run.status}"
        + (f", {run.value:.4g} %" if run.value is not None else "")
        + (f", {run.reason}" if run.reason else ""),
    ]
    for part in ("backbone", "detector", "attention", "recipe"):
        if part in run.spec:
            lines += _wrapped(part, _listed(run.spec[part]))
    for name, text in run_facts(run):
        # A path stays on one line, to be copied.
        lines += [f"  {name:9} {text}"] if name in PATHS else _wrapped(name, text)
    return lines


def _listed(keys: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in flatten(keys).items()) or "none"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{round(value, 1):.15g}"


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"  {name:9} ", subsequent_indent=" " * 12,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
