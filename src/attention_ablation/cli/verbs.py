"""What each verb of the command does, given its options; see cli.py for these.

Heavy modules (torch, pandas, matplotlib) are imported inside the verbs that need them. A verb
returns nothing or an exit code, and raises UserError for a user's mistake.
"""

import argparse
import json
import textwrap
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.base.io import parse_json, write_text
from attention_ablation.base.model import Model
from attention_ablation.base.yaml import parse_yaml
from attention_ablation.datasets import contract
from attention_ablation.study.claims import ClaimsFile
from attention_ablation.study.config import (
    Config,
    DetectionsFigure,
    ReferenceFigure,
    StudyFile,
    Tier,
)
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.files import load_study, merged, parse

if TYPE_CHECKING:
    import pandas as pd


COMPLEXITY = "complexity"  # takes ten seconds, and no run changes it


class Composed(Model):
    """The part of a recipe that `prepare` is given."""

    dataset: contract.by_name(contract.Composed)  # type: ignore[valid-type]


def train(options: argparse.Namespace) -> None:
    """Train one run."""
    from attention_ablation.training.attempt import attempt

    attempt(
        options.spec,
        options.data,
        device_name=options.device,
        threads=options.threads,
        runs_per_gpu=options.runs_per_gpu,
        number=options.attempt,
        datasets=options.datasets,
        workers=options.workers,
    )


def gradcam(options: argparse.Namespace) -> None:
    """Explain one finished run."""
    from attention_ablation.training.slots import gpu_slot

    # Before torch, which then sees the GPU of the slot only.
    with gpu_slot(options.runs_per_gpu) if options.device == "auto" else nullcontext():
        import torch

        from attention_ablation.evidence.explain import explain
        from attention_ablation.training.device import choose_device
        from attention_ablation.training.run import seed_everything

        torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        seed_everything(0, device)
        found = explain(
            options.spec,
            options.data,
            device,
            datasets=options.datasets,
            workers=options.workers,
        )
        print(found.model_dump_json(indent=2, exclude_unset=True))


def render(options: argparse.Namespace) -> None:
    """Write what is asked for from the runs that are there."""
    plan = chosen_plan(options)
    ledger = ["claims"] * bool(plan.study.claims)
    everything = ["runs", *plan.tables, *plan.figures, *ledger, "report"]
    names, valid = options.names or everything, [COMPLEXITY, *everything]
    for name in names:
        if name not in valid:
            raise unknown("table or figure", name, valid, options.config)

    @cache
    def frame() -> "pd.DataFrame":
        from attention_ablation.report.collect import collect

        return collect(plan)

    refused = []
    for name in names:
        try:
            _render(plan, name, frame)
        except UserError as refusal:  # the others are written all the same
            refused.append(str(refusal))
    if refused:
        raise UserError("\n".join(refused))


def _render(plan: Plan, name: str, frame: "Callable[[], pd.DataFrame]") -> None:
    """Write one table or figure, the ledger, the report or runs.csv.

    Args:
        frame: returns the collected runs, which not every name needs.
    """
    if name == "runs":
        from attention_ablation.report.collect import write_runs

        write_runs(plan, frame())
    elif name == COMPLEXITY:
        from attention_ablation.evidence.complexity import write_complexity

        write_complexity(plan)
    elif name == "claims":
        from attention_ablation.report.claims import write_claims

        write_claims(plan, frame())
    elif name == "report":
        from attention_ablation.report.html import write_report

        write_report(plan, frame())
    elif name in plan.tables:
        from attention_ablation.report.tables import write_table

        write_table(plan, name, frame())
    elif name in plan.gradcam_figures:
        from attention_ablation.figures.gradcam import write_gradcam

        write_gradcam(plan, name)
    elif isinstance(plan.study.figures[name], ReferenceFigure):
        from attention_ablation.figures.reference_curves import write_reference

        write_reference(plan, name)
    elif isinstance(plan.study.figures[name], DetectionsFigure):
        from attention_ablation.figures.detections import write_detections

        write_detections(plan, name)
    else:
        from attention_ablation.figures.error_curves import write_figure

        write_figure(plan, name)


def chosen_plan(options: argparse.Namespace) -> Plan:
    """Return the plan of the config that the options choose."""
    settings = {}
    for setting in options.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set: expected KEY=VALUE with a value in YAML, got '{setting}'.")
        settings[key] = parse_yaml(value, f"--set {key}")
    if options.tier is not None:
        settings["tier"] = options.tier
    return load_plan(merged([options.config], settings))


def plan_cost(options: argparse.Namespace) -> None:
    """Print what the runs will cost."""
    from attention_ablation.cost.bill import describe, describe_runs, over_budget
    from attention_ablation.cost.cost import load_cost

    plan = chosen_plan(options)
    if options.calibrate:
        import torch

        from attention_ablation.training.calibrate import calibrate
        from attention_ablation.training.device import choose_device

        torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        calibrate([run.spec for run in plan.runs.values()], plan.calibration_folder, device)
    from attention_ablation.evidence.complexity import count_params

    cost = load_cost(plan)
    params = {path: count_params(run.spec) for path, run in plan.runs.items()}
    print(describe(cost, options.gpus, options.price, params))
    if options.runs:
        print(f"\n{describe_runs(cost)}")
    if refusal := over_budget(cost):
        print(f"\nIt will not be started: {refusal}")


def status(options: argparse.Namespace) -> None:
    """Print what became of every run."""
    from attention_ablation.runs.status import describe_status

    print(describe_status(chosen_plan(options)))


def where(options: argparse.Namespace) -> None:
    """Print what a cell came from."""
    plan = chosen_plan(options)
    from attention_ablation.report.provenance import find_cell
    from attention_ablation.report.where import as_json, as_text

    cell = find_cell(plan, options.table, options.row, options.metric)
    print(as_json(cell) if options.format == "json" else as_text(cell))


def verify(options: argparse.Namespace) -> int:
    """Print what does not agree with the runs; 1 where a number is wrong."""
    plan = chosen_plan(options)
    from attention_ablation.report.collect import collect
    from attention_ablation.report.verify import describe, trustworthy, verify

    runs = collect(plan)
    findings = verify(plan, runs)
    print(describe(plan, findings, runs))
    return int(not trustworthy(findings))


def complexity(options: argparse.Namespace) -> int:
    """Print counted sizes beside the printed ones; 1 where one has no explanation."""
    study = load_study(Path("workflow/studies"), options.study, "--study")
    from attention_ablation.evidence.complexity import MISMATCH, complexity_table

    records = complexity_table(study)
    from tabulate import tabulate

    shown = [[r[0], r[1], f"{int(r[5]):,}", *r[6:]] for r in records]
    headings = ["table", "row", "params", "paper (M)", "GFLOPs", "paper", "verdict"]
    align = ["left", "left", *["right"] * 4, "left"]
    print(tabulate(shown, headings, disable_numparse=True, colalign=align))
    for name, discrepancy in study.discrepancies.items():
        print("\n" + textwrap.fill(f"{name}: {discrepancy.explanation}", 100))
    return int(any(record[-1] == MISMATCH for record in records))


def prepare(options: argparse.Namespace) -> None:
    """Compose a data set."""
    record = parse(Composed, {"dataset": parse_json(options.dataset, "prepare")}, "prepare")
    from attention_ablation.datasets.reading.composed import composed_arrays

    composed_arrays(record.dataset, options.folder)
    print(options.folder / record.dataset.prepared)


def schema(options: argparse.Namespace) -> None:
    """Write the JSON schemas."""
    models: dict[str, type[Model]] = {
        "config": Config,
        "study": StudyFile,
        "claims": ClaimsFile,
        "tier": Tier,
    }
    for name, model in models.items():
        text = json.dumps(model.model_json_schema(), indent=2)
        write_text(options.folder / f"{name}.schema.json", text + "\n")
