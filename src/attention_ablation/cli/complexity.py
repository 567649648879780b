"""Count parameters and GFLOPs; compare."""

import argparse
import textwrap

from attention_ablation.base.errors import few
from attention_ablation.cli.options import add_study, chosen_study

add_options = add_study


def run(options: argparse.Namespace) -> int:
    """Print counted sizes beside the printed ones; 1 where one has no explanation."""
    from tabulate import tabulate

    from attention_ablation.evidence.complexity import count_rows, unexplained

    study = chosen_study(options)

    counted = count_rows(study)
    columns = {
        "table": [c.table for c in counted],
        "row": [c.row for c in counted],
        "params": [f"{c.params:,}" for c in counted],
        "paper (M)": [c.params_m_paper for c in counted],
        "GFLOPs": ["" if c.gflops is None else f"{c.gflops:.6f}" for c in counted],
        "paper": [c.gflops_paper for c in counted],
        "verdict": [c.verdict for c in counted],
    }
    if not study.has_printed:
        columns = {name: columns[name] for name in ("table", "row", "params", "GFLOPs")}
    align = ["right" if name not in ("table", "row", "verdict") else "left" for name in columns]
    print(tabulate(columns, headers="keys", disable_numparse=True, colalign=align))
    for name, discrepancy in study.discrepancies.items():
        print("\n" + textwrap.fill(f"{name}: {discrepancy.explanation}", 100))
    found = [(c, unexplained(study, c)) for c in counted]
    if wrong := [f"{c.table} {c.row} ({', '.join(odd)})" for c, odd in found if odd]:
        print(
            f"\nNot what is printed: {few(wrong)}. Correct rows.csv, or explain the cells below "
            "discrepancies in study.yaml."
        )
    return int(bool(wrong))
