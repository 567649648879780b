"""Regenerate a paper's tables: the verbs that the workflow calls, and a person may."""

import argparse
import csv
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from attention_ablation import __version__
from attention_ablation.study.claims import ClaimsFile
from attention_ablation.study.config import Config, StudyFile, Tier, load_study, read_yaml
from attention_ablation.study.datasets import DOWNLOADS, ClutteredDigits
from attention_ablation.study.errors import UserError, unknown
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.model import Model

# Heavy modules (torch, pandas, matplotlib) are imported inside the verbs that need them.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, 1 for a bad finding, 2 for a user's mistake."""
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
    _add_run(train)
    train.add_argument(
        "--attempt",
        type=int,
        default=1,
        metavar="N",
        help="above 1, do not try again what failed by itself before; default: 1",
    )
    train.set_defaults(verb=_train)

    gradcam = verbs.add_parser("gradcam", help="write where a finished run looks: Grad-CAM")
    _add_run(gradcam)
    gradcam.set_defaults(verb=_gradcam)

    render = verbs.add_parser(
        "render", help="write runs.csv, tables, figures, claims and report from what is there"
    )
    render.add_argument(
        "names", nargs="*", help="runs, table1, figure4, claims, report ...; default: everything"
    )
    _add_choice(render)
    render.set_defaults(verb=_render)

    plan = verbs.add_parser("plan", help="say what the runs will cost, before any is started")
    _add_choice(plan)
    plan.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="runs at a time, a GPU each; default: 1"
    )
    plan.add_argument("--price", type=float, metavar="MONEY", help="of an hour of one GPU")
    plan.add_argument("--runs", action="store_true", help="list every run, too")
    plan.add_argument(
        "--calibrate",
        action="store_true",
        help="first measure every network that was not yet, a few steps each, on --device",
    )
    _add_device(plan)
    plan.set_defaults(verb=_plan_cost)

    status = verbs.add_parser("status", help="say which runs are done, running, failed, missing")
    _add_choice(status)
    status.set_defaults(verb=_status)

    where = verbs.add_parser("where", help="say which trainings a table's cell came from")
    where.add_argument("table", help="e.g. table4")
    where.add_argument("row", help="backbone, and gate where there is one, e.g. resnet50+cbam")
    where.add_argument("metric", help="params_m, gflops, top1_error or top5_error")
    where.add_argument("--format", choices=["text", "json"], default="text")
    _add_choice(where)
    where.set_defaults(verb=_where)

    verify = verbs.add_parser("verify", help="hold every number to the folder of its run")
    _add_choice(verify)
    verify.set_defaults(verb=_verify)

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

    data = verbs.add_parser("data", help="fetch or check the data sets that are not composed")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    download = actions.add_parser(
        "download", help="fetch a data set; unpack ImageNet's archives, which nobody may fetch"
    )
    download.add_argument("name", choices=DOWNLOADS, help=", ".join(DOWNLOADS))
    _add_choice(download)
    download.set_defaults(verb=_download)
    check = actions.add_parser("check", help="decode every image of a tier's data sets")
    _add_choice(check)
    check.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes; default: one for each core"
    )
    check.set_defaults(verb=_check)

    schema = verbs.add_parser(
        "schema", help="write the JSON schemas of config, study, claims and tier files"
    )
    schema.add_argument("folder", type=Path, nargs="?", default=Path("workflow/schemas"))
    schema.set_defaults(verb=_schema)
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    default = Path("config.yaml")
    parser.add_argument(
        "--config", type=Path, default=default, metavar="FILE", help=f"default: {default}"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config, such as tier=imagenet",
    )
    parser.add_argument("--tier", metavar="NAME", help="the same as --set tier=NAME")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, help="results/<tier>/runs/<run id>/seed-<n>/spec.json")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("results/data"),
        metavar="FOLDER",
        help="where composed data sets and lists of files are; default: results/data",
    )
    parser.add_argument(
        "--datasets",
        type=Path,
        metavar="FOLDER",
        help="where the other data sets are, each by its name; default: the same",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that decode image files; default: 1",
    )
    _add_device(parser)
    parser.add_argument(
        "--runs-per-gpu",
        type=int,
        default=1,
        metavar="N",
        help="runs that share a GPU; one that finds all taken waits; default: 1",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 ...; default: a GPU if any"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default: 1")


def _train(options: argparse.Namespace) -> None:
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


def _gradcam(options: argparse.Namespace) -> None:
    from attention_ablation.training.slots import gpu_slot

    # Before torch, which then sees the GPU of the slot only.
    with gpu_slot(options.runs_per_gpu) if options.device == "auto" else nullcontext():
        import torch

        from attention_ablation.analysis.explain import explain
        from attention_ablation.training.device import choose_device
        from attention_ablation.training.run import settle

        torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        settle(0, device)
        found = explain(
            options.spec,
            options.data,
            device,
            datasets=options.datasets,
            workers=options.workers,
        )
        print(json.dumps(found, indent=2))


def _render(options: argparse.Namespace) -> None:
    plan = _plan(options)
    ledger = ["claims"] * bool(plan.study.claims)
    valid = ["runs", *plan.tables, *plan.figures, *ledger, "report"]
    names = options.names or valid
    for name in names:
        if name not in valid:
            raise unknown("table or figure", name, valid, options.config)
    from attention_ablation.report.collect import collect, write_runs

    frame = collect(plan)
    refused = []
    for name in names:
        if name == "runs":
            write_runs(plan, frame)
        elif name == "claims":
            from attention_ablation.report.claims import write_claims

            write_claims(plan, frame)
        elif name == "report":
            from attention_ablation.report.html import write_report

            write_report(plan, frame)
        elif name in plan.tables:
            from attention_ablation.report.tables import write_table

            try:
                write_table(plan, name, frame)
            except UserError as refusal:  # the others are written all the same
                refused.append(str(refusal))
        elif name in plan.gradcam_figures:
            from attention_ablation.report.gradcam import write_gradcam

            write_gradcam(plan, name)
        else:
            from attention_ablation.report.curves import write_figure

            write_figure(plan, name)
    if refused:
        raise UserError("\n".join(refused))


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
    if options.tier:
        config["tier"] = options.tier
    return load_plan(config)


def _plan_cost(options: argparse.Namespace) -> None:
    from attention_ablation.study.bill import describe, describe_runs, over_budget
    from attention_ablation.study.cost import load_cost

    if options.gpus < 1:
        raise UserError(f"--gpus: expected 1 or more, got {options.gpus}.")
    if options.price is not None and options.price < 0:
        raise UserError(f"--price: expected 0 or more, got {options.price:g}.")
    plan = _plan(options)
    if options.calibrate:
        import torch

        from attention_ablation.training.calibrate import calibrate
        from attention_ablation.training.device import choose_device

        torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        calibrate(plan.specs.values(), plan.calibration_folder, device)
    from attention_ablation.analysis.complexity import count_params

    cost = load_cost(plan)
    params = {path: count_params(run.spec) for path, run in plan.runs.items()}
    print(describe(cost, options.gpus, options.price, params))
    if options.runs:
        print(f"\n{describe_runs(cost)}")
    if refusal := over_budget(cost):
        print(f"\nIt will not be started: {refusal}")


def _status(options: argparse.Namespace) -> None:
    from attention_ablation.study.status import describe_status

    print(describe_status(_plan(options)))


def _where(options: argparse.Namespace) -> None:
    plan = _plan(options)
    from attention_ablation.report.provenance import as_json, as_text, find_cell

    cell = find_cell(plan, options.table, options.row, options.metric)
    print(as_json(cell) if options.format == "json" else as_text(cell))


def _verify(options: argparse.Namespace) -> int:
    plan = _plan(options)
    from attention_ablation.report.verify import describe, trustworthy, verify

    findings = verify(plan)
    print(describe(plan, findings))
    return int(not trustworthy(findings))


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
        dataset = TypeAdapter(ClutteredDigits).validate_json(options.dataset)
    except ValidationError as error:
        raise UserError(f"expected the record of a composed data set as JSON: {error}") from None
    from attention_ablation.data.load import prepare

    print(prepare(dataset, options.folder))


def _download(options: argparse.Namespace) -> None:
    plan = _plan(options)
    from attention_ablation.data.fetch import fetch

    print(fetch(options.name, plan.datasets_folder))


def _check(options: argparse.Namespace) -> int:
    plan = _plan(options)
    from attention_ablation.data.check import check

    datasets = {
        run.spec.recipe.dataset.model_dump_json(): run.spec.recipe.dataset
        for run in plan.runs.values()
    }
    workers = options.workers or len(os.sched_getaffinity(0))
    found = [check(d, plan.data_folder, plan.datasets_folder, workers) for d in datasets.values()]
    return int(not all(found))


def _schema(options: argparse.Namespace) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    models: dict[str, type[Model]] = {
        "config": Config,
        "study": StudyFile,
        "claims": ClaimsFile,
        "tier": Tier,
    }
    for name, model in models.items():
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
