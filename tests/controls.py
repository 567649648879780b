"""The study controls at the tiny tier, and what its tests do to its files and runs."""

from pathlib import Path
from typing import Any

from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from tests.run_folders import finished

FOLDER = Path("workflow/studies/controls")
STUDY, ROWS, CLAIMS = FOLDER / "study.yaml", FOLDER / "rows.csv", FOLDER / "claims.yaml"
TIER = Path("workflow/tiers/tiny.yaml")


def load(seeds: int = 3) -> Plan:
    """Plan it, with the project as the working folder."""
    return load_plan(Config(study="controls", tier="tiny", seeds=list(range(seeds))))


def errors(plan: Plan, row: str, top1: list[float], **facts: Any) -> None:
    """Finish a row's runs, such as 'length:resnet18@x2', one for each error."""
    for run, error in zip(plan.row_runs(*row.split(":")), top1, strict=False):
        finished(plan, run, error, **facts)


def change_rows(old: str, new: str) -> None:
    """Replace a part of rows.csv that is there."""
    text = ROWS.read_text()
    assert old in text
    ROWS.write_text(text.replace(old, new))


def claim(table: str, rows: list[str], **keys: Any) -> dict[str, Any]:
    """Return a claim of one comparison of top-1 errors."""
    comparison = {"table": table, "rows": rows, "metrics": ["top1_error"], **keys}
    return {"place": "here", "says": "A test.", "comparisons": [comparison]}
