"""Regenerate a paper's tables: the verbs that the workflow calls, and a person may."""

import argparse
import csv
import gc
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from attention_ablation import STARTED, __version__
from attention_ablation.study.config import Config, StudyFile, Tier, load_study, read_yaml
from attention_ablation.study.errors import UserError, unknown
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.spec import Dataset
from attention_ablation.training.processes import Processes, join, local_rank
from attention_ablation.training.slots import gpu_slot

# Heavy modules (torch, pandas, matplotlib) are imported inside the verbs that need them.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, 1 for a run that failed, 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.verb(options) or 0)
    except UserError as error:
        print(f"attention-ablation: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attention-ablation", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    train = verbs.add_parser("train", help="train one run, whose spec.json is given")
    train.add_argument("spec", type=Path, help="results/<tier>/runs/<run id>/seed-<n>/spec.json")
    train.add_argument(
        "--data",
        type=Path,
        default=Path("results/data"),
        metavar="FOLDER",
        help="where composed data sets are; default: results/data",
    )
    train.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 ...; default: a GPU if any"
    )
    train.add_argument(
        "--runs-per-gpu",
        type=int,
        default=1,
        metavar="N",
        help="trainings that share a GPU; one that finds all taken waits; default: 1",
    )
    train.add_argument("--threads", type=int, default=1, help="CPU threads; default: 1")
    train.set_defaults(verb=_train)

    render = verbs.add_parser(
        "render", help="write runs.csv, tables and figures from what is there"
    )
    render.add_argument("names", nargs="*", help="runs, table1, figure4 ...; default: everything")
    render.add_argument(
        "--config",
        type=Path,
        default=Path("config.yaml"),
        metavar="FILE",
        help="default: config.yaml",
    )
    render.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config",
    )
    render.set_defaults(verb=_render)

    complexity = verbs.add_parser("complexity", help="count parameters and GFLOPs; compare")
    complexity.add_argument(
        "--study", default="cbam", help="a folder in workflow/studies; default: cbam"
    )
    complexity.add_argument("--format", choices=["text", "csv"], default="text")
    complexity.set_defaults(verb=_complexity)

    prepare = verbs.add_parser("prepare", help="compose a data set into a file")
    prepare.add_argument("dataset", help="a recipe's 'dataset', as JSON")
    prepare.add_argument("folder", type=Path)
    prepare.set_defaults(verb=_prepare)

    schema = verbs.add_parser(
        "schema", help="write the JSON schemas of config, study and tier files"
    )
    schema.add_argument("folder", type=Path, nargs="?", default=Path("workflow/schemas"))
    schema.set_defaults(verb=_schema)
    return parser


def _train(options: argparse.Namespace) -> int:
    from attention_ablation.study.runs import FAILURE, read_run, write_json

    run, folder = read_run(options.spec), options.spec.parent
    # Under torchrun the processes have their GPUs already.
    alone = options.device == "auto" and local_rank() is None
    with join(options.device) as processes, _reserved(folder, processes) as finished:
        if finished:
            return 0
        try:
            # After the folder: one that waits for a run to be finished elsewhere needs no GPU.
            with gpu_slot(options.runs_per_gpu) if alone else nullcontext():
                _train_here(options, run, folder, processes)
        except Exception as error:
            # The first process to fail knows why; the others fail because they miss it.
            if not (folder / FAILURE).exists():
                write_json(folder / FAILURE, {"status": "failed", "reason": _reason(error)})
            raise
    return 0


@contextmanager
def _reserved(folder: Path, processes: Processes) -> Iterator[bool]:
    """Hold the run's folder, by the main process, and yield whether the run is finished."""
    from attention_ablation.study.runs import FAILURE, held, restore

    if not processes.is_main:
        while (finished := processes.tell(None)) is None:
            pass  # the main one waits, and says so again and again, or this one would give up
        yield finished
        return
    with held(folder, meanwhile=lambda: processes.tell(None)):
        # Another process may have finished it while this one waited, or Snakemake was killed
        # before it noted that the run had ended.
        finished = restore(folder)
        if finished:
            print(f"{folder}: finished already; to train it again, delete the folder.")
        else:
            (folder / FAILURE).unlink(missing_ok=True)  # of an earlier call
        yield processes.tell(finished)


def _train_here(options: argparse.Namespace, run: Any, folder: Path, processes: Processes) -> None:
    # Importing makes millions of objects that stay; the collector would look at them many times.
    gc.disable()
    import torch

    from attention_ablation.training.device import choose_device
    from attention_ablation.training.run import train

    gc.enable()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    train(run, folder, options.data, device, processes=processes, started=STARTED)


def _reason(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error)
    return text.strip().splitlines()[0][:300]


def _render(options: argparse.Namespace) -> None:
    plan = _plan(options)
    names = options.names or ["runs", *plan.tables, *plan.figures]
    valid = ["runs", *plan.tables, *plan.figures]
    for name in names:
        if name not in valid:
            raise unknown("table or figure", name, valid, options.config)
    from attention_ablation.report.collect import collect, write_runs

    frame = collect(plan)
    for name in names:
        if name == "runs":
            write_runs(plan, frame)
        elif name in plan.tables:
            from attention_ablation.report.tables import write_table

            write_table(plan, name, frame)
        else:
            from attention_ablation.report.curves import write_figure

            write_figure(plan, name)


def _plan(options: argparse.Namespace) -> Plan:
    config = read_yaml(options.config) or {}
    for setting in options.set:
        key, equals, value = setting.partition("=")
        try:
            config[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise UserError(f"--set: expected KEY=VALUE with a value in YAML, got '{setting}'.")
    return load_plan(config)


def _complexity(options: argparse.Namespace) -> int:
    study = load_study(Path("workflow/studies"), options.study, "--study")
    from attention_ablation.analysis.complexity import MISMATCH, complexity_rows

    columns = [
        *("table", "row", "label", "backbone", "attention", "params", "params_m_paper"),
        *("gflops", "gflops_paper", "verdict"),
    ]
    records = [
        [
            *(row.table, row.key, row.label, row.backbone, row.attention, ours.params),
            *(row.printed.get("params_m", ""), f"{ours.gflops:.6f}", row.printed.get("gflops", "")),
            verdict,
        ]
        for row, ours, verdict in complexity_rows(study)
    ]
    if options.format == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows([columns, *records])
        return 0  # the verdict is in the file, for the tables to show
    from tabulate import tabulate

    shown = [[r[0], r[1], f"{r[5]:,}", *r[6:]] for r in records]
    headings = ["table", "row", "params", "paper (M)", "GFLOPs", "paper", "verdict"]
    align = ["left", "left", *["right"] * 4, "left"]
    print(tabulate(shown, headings, disable_numparse=True, colalign=align))
    for name, discrepancy in study.discrepancies.items():
        print("\n" + textwrap.fill(f"{name}: {discrepancy.explanation}", 100))
    return int(any(record[-1] == MISMATCH for record in records))


def _prepare(options: argparse.Namespace) -> None:
    try:
        dataset: Any = TypeAdapter(Dataset).validate_json(options.dataset)
    except ValidationError as error:
        raise UserError(f"expected a recipe's data set as JSON: {error}") from None
    from attention_ablation.data.load import prepare

    print(prepare(dataset, options.folder))


def _schema(options: argparse.Namespace) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, model in (("config", Config), ("study", StudyFile), ("tier", Tier)):
        text = json.dumps(model.model_json_schema(), indent=2)
        (options.folder / f"{name}.schema.json").write_text(text + "\n")


def script() -> None:
    """Run one verb as a command, and leave without taking torch apart, which takes 0.7 s."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    script()
