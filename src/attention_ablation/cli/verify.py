"""Hold every number to the folder of its run."""

import argparse

from attention_ablation.cli.options import add_choice, chosen_plan


def add_options(parser: argparse.ArgumentParser) -> None:
    add_choice(parser)
    parser.add_argument(
        "--without-weights",
        action="store_true",
        help="leave out weights.pt, which results that were published do not have",
    )


def run(options: argparse.Namespace) -> int:
    """Print what does not agree with the runs; 1 where a number is wrong."""
    from attention_ablation.report.collect import collect
    from attention_ablation.report.verify import describe, trustworthy, verify

    plan = chosen_plan(options)
    runs = collect(plan)
    findings = verify(plan, runs, weights=not options.without_weights)
    print(describe(plan, findings, runs))
    return int(not trustworthy(findings))
