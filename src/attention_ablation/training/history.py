"""The history of a training: a row of numbers for each epoch that is done."""

import csv
import io
import math
from typing import Any

History = list[dict[str, float]]


def diverged(history: History) -> bool:
    """Whether a loss of the last epoch is not finite."""
    losses = [v for row in history[-1:] for k, v in row.items() if k.endswith("_loss")]
    return not all(map(math.isfinite, losses))


def results(history: History) -> dict[str, Any]:
    """Return status, epochs and the last epoch's numbers, None for those that are not finite."""
    last = {k: v for k, v in history[-1].items() if k.startswith(("train_", "validation_"))}
    return {
        "status": "diverged" if diverged(history) else "completed",
        "epochs": len(history),
        **{k: v if math.isfinite(v) else None for k, v in last.items()},
    }


def as_csv(history: History) -> str:
    """Return the text of history.csv."""
    columns = max(history, key=len)  # an epoch may have no evaluation
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
