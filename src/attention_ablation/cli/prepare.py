"""Compose a data set into a file."""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="a recipe's 'dataset', as JSON")
    parser.add_argument("folder", type=Path)


def run(options: argparse.Namespace) -> None:
    from attention_ablation.base.io import parse_json
    from attention_ablation.base.model import Model
    from attention_ablation.datasets import contract
    from attention_ablation.datasets.reading.kept import composed_arrays
    from attention_ablation.study.files import parse

    class Part(Model):
        """The part of a recipe that is given."""

        dataset: contract.by_name(contract.Composed)  # type: ignore[valid-type]

    record = parse(Part, {"dataset": parse_json(options.dataset, "prepare")}, "prepare")
    composed_arrays(record.dataset, options.folder)
    print(options.folder / record.dataset.prepared)
