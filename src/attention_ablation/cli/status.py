"""Say which runs are done, running, failed, missing."""

import argparse

from attention_ablation.cli.options import add_choice, chosen_plan, count

WATCH_SECONDS = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    add_choice(parser)
    text = "show those under way with epoch, loss and time left, until all have ended; default: 2"
    parser.add_argument(
        "--watch", type=count(1, 3600), nargs="?", const=WATCH_SECONDS, metavar="SECONDS", help=text
    )


def run(options: argparse.Namespace) -> None:
    from attention_ablation.runs.status import describe_status
    from attention_ablation.runs.watch import watch

    plan = chosen_plan(options)
    if options.watch:
        watch(plan, options.watch)
    else:
        print(describe_status(plan))
