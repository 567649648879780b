"""Write runs.csv, tables, figures, claims and report from what is there."""

import argparse
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.cli.options import add_choice, chosen_plan
from attention_ablation.study.expand import Plan

if TYPE_CHECKING:
    import pandas as pd

COMPLEXITY = "complexity"  # takes ten seconds, and no run changes it


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        help="runs, table1, figure4, claims, report ...; default: everything but `complexity`, "
        "which counts every row's network",
    )
    add_choice(parser)


def run(options: argparse.Namespace) -> None:
    """Write what is asked for; what is refused keeps nothing else from being written."""
    plan = chosen_plan(options)
    ledger = ["claims"] * bool(plan.study.claims)
    everything = ["runs", *plan.tables, *plan.figures, *ledger, "report"]
    names, valid = options.names or everything, [COMPLEXITY, *everything]
    for name in names:
        if name not in valid:
            raise unknown("table or figure", name, valid, options.config)

    @cache
    def frame() -> "pd.DataFrame":
        from attention_ablation.report.collect import collect

        return collect(plan)

    refused = []
    for name in names:
        try:
            _render(plan, name, frame)
        except UserError as refusal:
            refused.append(str(refusal))
    if refused:
        raise UserError("\n".join(refused))


def _render(plan: Plan, name: str, frame: "Callable[[], pd.DataFrame]") -> None:
    """Write one table or figure, the ledger, the report or runs.csv.

    Args:
        frame: returns the collected runs, which not every name needs.
    """
    if name == "runs":
        from attention_ablation.report.collect import write_runs

        write_runs(plan, frame())
    elif name == COMPLEXITY:
        from attention_ablation.evidence.complexity import write_complexity

        write_complexity(plan)
    elif name == "claims":
        from attention_ablation.report.claims import write_claims

        write_claims(plan, frame())
    elif name == "report":
        from attention_ablation.report.html import write_report

        write_report(plan, frame())
    elif name in plan.tables:
        from attention_ablation.report.tables import write_table

        write_table(plan, name, frame())
    else:
        plan.study.figures[name].write(plan, name)
