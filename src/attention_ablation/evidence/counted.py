"""Counted sizes of full-size networks, as complexity.csv has them."""

import io

import pandas as pd

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, read_text
from attention_ablation.study.expand import Plan

COMPLEXITY_CSV = "complexity.csv"
COLUMNS = (
    *("table", "row", "label", "backbone", "attention", "params", "params_m_paper"),
    *("gflops", "gflops_paper", "verdict"),
)


def counted(plan: Plan, table: str) -> pd.DataFrame:
    """Return a table's lines of complexity.csv by row, none where it is missing.

    `params_m` is in 1e6 parameters, `gflops` in 1e9 multiply-accumulates. Raises as
    `counted_lines`.
    """
    frame = counted_lines(plan)
    frame = frame[frame["table"] == table].set_index("row")
    return frame.assign(
        params_m=frame["params"].astype(int) / 1e6,
        gflops=pd.to_numeric(frame["gflops"]).astype(float),
    )


def counted_lines(plan: Plan) -> pd.DataFrame:
    """Return complexity.csv as text, without a line where it is missing.

    Raises UserError where it is damaged.
    """
    path = plan.folder / COMPLEXITY_CSV
    try:
        text = io.StringIO(read_text(path))
        frame = pd.read_csv(text, dtype=str, keep_default_na=False)
        frame["params"].astype(int)
        pd.to_numeric(frame["gflops"])
        if not frame.duplicated(["table", "row"]).any():
            return frame.reindex(columns=list(COLUMNS), fill_value="")
    except Missing:
        return pd.DataFrame(columns=list(COLUMNS), dtype=str)
    except (KeyError, ValueError, OverflowError):
        pass
    raise UserError(
        f"{path}: expected a line for each row, with its size in numbers; "
        "`attention-ablation render complexity` writes it again."
    )
