"""Hold every number to the folder of its run."""

import argparse

from attention_ablation.cli.options import add_choice, chosen_plan

add_options = add_choice


def run(options: argparse.Namespace) -> int:
    """Print what does not agree with the runs; 1 where a number is wrong."""
    plan = chosen_plan(options)
    from attention_ablation.report.collect import collect
    from attention_ablation.report.verify import describe, trustworthy, verify

    runs = collect(plan)
    findings = verify(plan, runs)
    print(describe(plan, findings, runs))
    return int(not trustworthy(findings))
