"""Fetch or check the data sets that are not composed."""

import argparse
import os

from attention_ablation.cli.options import add_choice, chosen_plan, count
from attention_ablation.datasets.records import DOWNLOADS


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
    plan = chosen_plan(options)
    from attention_ablation.datasets.fetch import fetch

    print(fetch(options.name, plan.datasets_folder))


def _check(options: argparse.Namespace) -> int:
    plan = chosen_plan(options)
    from attention_ablation.datasets.check import check

    datasets = {
        run.spec.recipe.dataset.model_dump_json(): run.spec.recipe.dataset
        for run in plan.runs.values()
    }
    workers = options.workers or len(os.sched_getaffinity(0))
    found = [check(d, plan.data_folder, plan.datasets_folder, workers) for d in datasets.values()]
    return int(not all(found))
