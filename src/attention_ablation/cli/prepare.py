"""Compose a data set into a file."""

import argparse
from pathlib import Path

from pydantic import Field

from attention_ablation.base.io import parse_json
from attention_ablation.base.model import Model
from attention_ablation.datasets.records import ClutteredDigits, ClutteredScenes
from attention_ablation.study.files import parse


class Composed(Model):
    """The part of a recipe that is given."""

    dataset: ClutteredDigits | ClutteredScenes = Field(discriminator="name")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="a recipe's 'dataset', as JSON")
    parser.add_argument("folder", type=Path)


def run(options: argparse.Namespace) -> None:
    record = parse(Composed, {"dataset": parse_json(options.dataset, "prepare")}, "prepare")
    from attention_ablation.datasets.composed import prepare

    print(prepare(record.dataset, options.folder))
