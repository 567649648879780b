"""Fetch or check the data sets that are not composed."""

import argparse
import os

from attention_ablation.base.errors import UserError
from attention_ablation.cli.options import add_choice, chosen_plan, count
from attention_ablation.datasets.contract import Record, records
from attention_ablation.datasets.folders import Folders

DOWNLOADS = {name: record for record in records(Record) for name in record.downloads}


def add_options(data: argparse.ArgumentParser) -> None:
    """Add the two actions."""
    actions = data.add_subparsers(required=True, metavar="ACTION")
    download = actions.add_parser(
        "download", help="fetch a data set; unpack ImageNet's archives, which nobody may fetch"
    )
    download.add_argument("name", choices=DOWNLOADS, help=", ".join(DOWNLOADS))
    add_choice(download)
    download.set_defaults(action=_download)
    check = actions.add_parser("check", help="decode every image of a tier's data sets")
    add_choice(check)
    check.add_argument(
        "--workers",
        type=count(0),
        default=0,
        metavar="N",
        help="processes; default: one for each core",
    )
    check.set_defaults(action=_check)


def run(options: argparse.Namespace) -> int | None:
    """Do the action that is chosen."""
    found: int | None = options.action(options)
    return found


def _download(options: argparse.Namespace) -> None:
    name = options.name
    folder = chosen_plan(options).datasets_folder / name.split("-")[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        DOWNLOADS[name].download(name, folder)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{folder}: {name} could not be fetched: {error}") from None
    print(f"{folder}: {name} is there.")


def _check(options: argparse.Namespace) -> int:
    plan = chosen_plan(options)
    from attention_ablation.datasets.reading.check import check

    runs = plan.runs.values()
    datasets = {run.spec.recipe.dataset: None for run in runs}  # each once, in the plan's order
    folders = Folders(plan.data_folder, plan.datasets_folder)
    workers = options.workers or len(os.sched_getaffinity(0))
    found = [check(dataset, folders, workers) for dataset in datasets]
    return int(not all(found))
