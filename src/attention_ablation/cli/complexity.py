"""Count parameters and GFLOPs; compare."""

import argparse
import textwrap

from attention_ablation.base.errors import few
from attention_ablation.cli.options import add_study, chosen_study

add_options = add_study


def run(options: argparse.Namespace) -> int:
    """Print counted sizes beside the printed ones; 1 where one has no explanation."""
    study = chosen_study(options)
    from tabulate import tabulate

    from attention_ablation.evidence.complexity import MISMATCH, count_rows

    counted = count_rows(study)
    shown = [
        [c.table, c.row, f"{c.params:,}", c.params_m_paper,
         "" if c.gflops is None else f"{c.gflops:.6f}", c.gflops_paper, c.verdict]
        for c in counted
    ]  # fmt: skip
    headings = ["table", "row", "params", "paper (M)", "GFLOPs", "paper", "verdict"]
    align = ["left", "left", *["right"] * 4, "left"]
    print(tabulate(shown, headings, disable_numparse=True, colalign=align))
    for name, discrepancy in study.discrepancies.items():
        print("\n" + textwrap.fill(f"{name}: {discrepancy.explanation}", 100))
    if wrong := [f"{c.table} {c.row}" for c in counted if c.verdict == MISMATCH]:
        print(
            f"\nNot what is printed: {few(wrong)}. Correct rows.csv, or explain the cells below "
            "discrepancies in study.yaml."
        )
    return int(bool(wrong))
