"""Say what the runs will cost, before any is started."""

import argparse

from attention_ablation.cli import options as given


def add_options(parser: argparse.ArgumentParser) -> None:
    given.add_choice(parser)
    option, text = parser.add_argument, "runs at a time, a GPU each; default: 1"
    option("--gpus", type=given.count(1, 100_000), default=1, metavar="N", help=text)
    option("--price", type=given.amount, metavar="MONEY", help="of an hour of one GPU")
    option("--runs", action="store_true", help="list every run, too")
    text = "first measure every network that was not yet, a few steps each, on --device"
    option("--calibrate", action="store_true", help=text)
    given.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Print the cost, measured before where that is asked for."""
    from attention_ablation.cost.bill import describe, describe_runs, over_budget
    from attention_ablation.cost.cost import load_cost

    plan = given.chosen_plan(options)
    if options.calibrate:
        from attention_ablation.training.calibrate import calibrate

        specs = [run.spec for run in plan.runs.values()]
        calibrate(specs, plan.calibration_folder, given.machine(options))
    from attention_ablation.evidence.complexity import count_params

    cost = load_cost(plan)
    params = {path: count_params(run.spec) for path, run in plan.runs.items()}
    print(describe(cost, options.gpus, options.price, params))
    if options.runs:
        print(f"\n{describe_runs(cost)}")
    if refusal := over_budget(cost):
        print(f"\nIt will not be started: {refusal}")
