"""Train one run, whose spec.json is given."""

import argparse

from attention_ablation.cli.options import add_run, count, folders, machine


def add_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    text = "above 1, do not try again what failed by itself before; default: 1"
    parser.add_argument("--attempt", type=count(1), default=1, metavar="N", help=text)


def run(options: argparse.Namespace) -> None:
    from attention_ablation.training.attempt import attempt

    where, computes = folders(options), machine(options)
    attempt(options.spec, where, computes, options.attempt)
