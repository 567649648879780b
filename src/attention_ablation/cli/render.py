"""Write runs.csv, tables, figures, claims and report from what is there."""

import argparse
from functools import cache
from typing import TYPE_CHECKING, Any

from attention_ablation.base.errors import UserError
from attention_ablation.cli.options import add_choice, chosen_plan

if TYPE_CHECKING:
    from attention_ablation.study.expand import Plan

COMPLEXITY = "complexity"  # takes ten seconds, and no run changes it


def add_options(parser: argparse.ArgumentParser) -> None:
    text = (
        "runs, table1, figure4, claims, report ...; default: everything but `complexity`, which "
        "counts every row's network"
    )
    parser.add_argument("names", nargs="*", help=text)
    add_choice(parser)


def run(options: argparse.Namespace) -> None:
    """Write what is asked for; what is refused keeps nothing else from being written."""
    from attention_ablation.base.errors import require

    plan = chosen_plan(options)
    ledger = ["claims"] * bool(plan.study.claims)
    # What is made from another one comes after it.
    everything = ["runs", *plan.tables, *ledger, *plan.figures, "report"]
    names = options.names or everything
    require("table or figure", names, [COMPLEXITY, *everything], options.config)

    @cache
    def frame() -> Any:
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


def _render(plan: "Plan", name: str, frame: Any) -> None:
    """Write one name; `frame` returns the collected runs, which not every name needs."""
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
