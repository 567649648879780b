"""Counted sizes of full-size networks, as complexity.csv has them."""

import pandas as pd

from attention_ablation.study.expand import Plan

COMPLEXITY_CSV = "complexity.csv"


def counted(plan: Plan, table: str) -> pd.DataFrame:
    """Return a table's lines of complexity.csv by row, none where it is missing.

    `params_m` is in 1e6 parameters, `gflops` in 1e9 multiply-accumulates.
    """
    path = plan.folder / COMPLEXITY_CSV
    if not path.exists():
        return pd.DataFrame(columns=["params", "params_m", "gflops", "verdict"])
    frame = pd.read_csv(path)
    frame = frame[frame["table"] == table].set_index("row")
    return frame.assign(params_m=frame["params"] / 1e6)
