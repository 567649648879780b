"""Compose a data set into a file."""

import argparse
from pathlib import Path

from attention_ablation.base.io import parse_json
from attention_ablation.base.model import Model
from attention_ablation.datasets import contract
from attention_ablation.study.files import parse


class Composed(Model):
    """The part of a recipe that is given."""

    dataset: contract.by_name(contract.Composed)  # type: ignore[valid-type]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="a recipe's 'dataset', as JSON")
    parser.add_argument("folder", type=Path)


def run(options: argparse.Namespace) -> None:
    record = parse(Composed, {"dataset": parse_json(options.dataset, "prepare")}, "prepare")
    from attention_ablation.datasets.reading.kept import composed_arrays

    composed_arrays(record.dataset, options.folder)
    print(options.folder / record.dataset.prepared)
