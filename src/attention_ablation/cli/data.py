"""Fetch or check the data sets that are not composed."""

import argparse
import os

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.base.registry import records
from attention_ablation.cli.options import add_choice, chosen_plan, count


def add_options(data: argparse.ArgumentParser) -> None:
    """Add the two actions."""
    actions = data.add_subparsers(required=True, metavar="ACTION", dest="action")
    download = actions.add_parser(
        "download", help="fetch a data set; unpack ImageNet's archives, which nobody may fetch"
    )
    download.add_argument("name", help="e.g. cifar10; docs/datasets.md lists them")
    add_choice(download)
    check = actions.add_parser("check", help="decode every image of a tier's data sets")
    add_choice(check)
    check.add_argument(
        "--workers",
        type=count(0),
        default=0,
        metavar="N",
        help="processes; default: one for each core",
    )


def run(options: argparse.Namespace) -> int:
    """Do the action that is chosen; 1 where a check found something."""
    if options.action == "download":
        download(options)
        return 0
    from attention_ablation.datasets.contract import Folders
    from attention_ablation.datasets.reading.examine import examine

    plan = chosen_plan(options)
    runs = plan.runs.values()
    datasets = {run.spec.recipe.dataset: None for run in runs}  # each once, in the plan's order
    folders = Folders(plan.data_folder, plan.datasets_folder)
    workers = options.workers or len(os.sched_getaffinity(0))
    found = [examine(dataset, folders, workers) for dataset in datasets]
    return int(not all(found))


def download(options: argparse.Namespace) -> None:
    """Fetch the data set that is named."""
    from attention_ablation.datasets.contract import Record

    known = records("attention_ablation.datasets", Record, "name")
    downloads = {name: record for record in known for name in record.downloads}
    name = options.name
    if name not in downloads:
        raise unknown("data set", name, downloads, "data download")
    folder = chosen_plan(options).datasets_folder / name.split("-")[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        downloads[name].download(name, folder)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{folder}: {name} could not be fetched: {error}") from None
    print(f"{folder}: {name} is there.")
