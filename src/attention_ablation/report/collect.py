"""From run folders to one frame: a row for every run that the plan asks for."""

from typing import Any

import pandas as pd

from attention_ablation.base.io import write_text
from attention_ablation.runs.folder import read_gradcam, read_outcome
from attention_ablation.runs.records import GRADCAM_MEANS
from attention_ablation.runs.verify import check_run, verdict
from attention_ablation.study.expand import Plan

RUNS_CSV = "runs.csv"
RARE = ("initial", "front_end", "packages")  # keys of a spec that have a column where one has them


def collect(plan: Plan) -> pd.DataFrame:
    """Return all of the plan's runs, indexed by folder: who shows them, spec, status and metrics.

    `status` is one of `runs.folder.STATES`; `verified` is 'yes' where the folder of a finished run
    agrees with itself, weights aside, or says why not.
    """
    shown: dict[str, list[str]] = {path: [] for path in plan.runs}
    for table, key in plan.specs:
        for run in plan.row_runs(table, key):
            shown[run.path].append(f"{table}:{key}")
    records = []
    for path, run in plan.runs.items():
        folder = plan.runs_folder / path
        outcome = read_outcome(folder)
        facts: dict[str, Any] = {"status": outcome.status, "verified": None}
        if outcome.metrics:
            facts["verified"] = verdict(check_run(folder))
            facts |= outcome.metrics.recorded
        if outcome.reason:
            facts["reason"] = outcome.reason
        gradcam = read_gradcam(folder) if outcome.metrics else None
        # Empty where there is none, and where the data set has no boxes.
        means = gradcam.means if gradcam else dict.fromkeys(GRADCAM_MEANS.values())
        facts |= {f"gradcam_{name}": mean for name, mean in means.items()}
        spec = run.spec.model_dump(mode="json")
        records.append({"run": path, "seed": run.seed, **spec, **facts})
    frame = pd.json_normalize(records).convert_dtypes().set_index("run")
    rare = [name for name in frame if str(name).rpartition(".")[2] in RARE]
    frame = frame.drop(columns=[name for name in rare if frame[name].isna().all()])
    frame.insert(0, "rows", pd.Series({path: " ".join(rows) for path, rows in shown.items()}))
    return frame


def write_runs(plan: Plan, frame: pd.DataFrame) -> None:
    """Write `runs.csv`: a column for each spec key, but for unused `RARE` ones, and each fact."""
    write_text(plan.folder / RUNS_CSV, frame.to_csv())
