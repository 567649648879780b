"""Say which runs are done, running, failed, missing."""

import argparse

from attention_ablation.cli.options import add_choice, chosen_plan
from attention_ablation.runs.status import describe_status

add_options = add_choice


def run(options: argparse.Namespace) -> None:
    print(describe_status(chosen_plan(options)))
