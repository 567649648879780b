"""Count parameters and GFLOPs; compare."""

import argparse
import textwrap

from attention_ablation.cli.options import add_study, chosen_study

add_options = add_study


def run(options: argparse.Namespace) -> int:
    """Print counted sizes beside the printed ones; 1 where one has no explanation."""
    study = chosen_study(options)
    from tabulate import tabulate

    from attention_ablation.evidence.complexity import MISMATCH, complexity_table

    records = complexity_table(study)
    shown = [[r[0], r[1], f"{int(r[5]):,}", *r[6:]] for r in records]
    headings = ["table", "row", "params", "paper (M)", "GFLOPs", "paper", "verdict"]
    align = ["left", "left", *["right"] * 4, "left"]
    print(tabulate(shown, headings, disable_numparse=True, colalign=align))
    for name, discrepancy in study.discrepancies.items():
        print("\n" + textwrap.fill(f"{name}: {discrepancy.explanation}", 100))
    return int(any(record[-1] == MISMATCH for record in records))
