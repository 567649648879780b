"""Write results elsewhere: curves to a tracker, or an archive to keep."""

import argparse
from pathlib import Path

from attention_ablation.cli.options import add_choice, chosen_plan


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the three targets."""
    targets = parser.add_subparsers(required=True, metavar="TARGET", dest="target")
    for name, where, text in (
        ("tensorboard", "DIR", "curves as TensorBoard's event files"),
        ("trackio", "PROJECT", "curves as runs of a local Trackio project"),
    ):
        curves = targets.add_parser(name, help=text, description=text)
        curves.add_argument("where", metavar=where)
        text = "go on as trainings write, until all have ended; Ctrl-C ends it"
        curves.add_argument("--follow", action="store_true", help=text)
        add_choice(curves)
    text = "specs, metrics, histories, tables, claims, page: a Workflow Run RO-Crate"
    crate = targets.add_parser("rocrate", help=text, description=text)
    crate.add_argument("file", type=Path, metavar="FILE.zip")
    crate.add_argument("--weights", action="store_true", help="with each run's final weights")
    crate.add_argument("--by", metavar="NAME", help="who ran it; default: it is not said")
    add_choice(crate)


def run(options: argparse.Namespace) -> None:
    plan = chosen_plan(options)
    if options.target == "rocrate":
        from attention_ablation.report.crate import write_crate

        print(write_crate(plan, options.file, options.weights, options.by))
        return
    from attention_ablation.report.curves import TRACKERS, write_curves

    tracker = TRACKERS[options.target](options.where)
    try:
        for line in write_curves(plan, tracker, options.follow):
            print(line, flush=True)
    except KeyboardInterrupt:  # the way to end --follow
        return
