"""What Grad-CAM says over all images: means, differences to the first row, and intervals."""

import io
from contextlib import suppress
from typing import Any

import pandas as pd

from attention_ablation.base.errors import UserError
from attention_ablation.evidence.statistics import bootstrap_interval, t_interval
from attention_ablation.figures.gradcam import GradCamFigure
from attention_ablation.runs.folder import GRADCAM_IMAGES, read_gradcam, read_outcome
from attention_ablation.runs.records import GRADCAM_MEANS, read_sealed
from attention_ablation.study.expand import Plan

COLUMNS = ["row", "metric", "mean", "ci_low", "ci_high", "interval", "n_images", "n_seeds"]
IMAGES, SEEDS = "bootstrap over images", "t over seeds"


def gradcam_frame(plan: Plan, figure: GradCamFigure) -> pd.DataFrame:
    """Return a line for each row and metric, and for each difference to the first row.

    The interval (95 %) of one seed is a bootstrap over its images, which says nothing about other
    seeds; of several it is a t-interval over the seeds' means, empty where they are equal.
    Differences, `<metric>_difference`, are paired by image, and by seed where there are several.
    What is not there has no line.
    """
    rows = {key: _per_image(plan, figure, key) for key in figure.rows}
    first = rows[figure.rows[0]]
    records = []
    for key, seeds in rows.items():
        pairs = [] if key == figure.rows[0] else sorted(seeds.keys() & first.keys())
        differences = {seed: seeds[seed] - first[seed] for seed in pairs}
        for of, suffix in ((seeds, ""), (differences, "_difference")):
            for column, metric in GRADCAM_MEANS.items():
                values = [frame[column] for frame in of.values() if column in frame]
                if values:
                    records.append({"row": key, "metric": metric + suffix} | _summary(values))
    return pd.DataFrame(records, columns=COLUMNS)


def _per_image(plan: Plan, figure: GradCamFigure, key: str) -> dict[int, pd.DataFrame]:
    """Return the numbers of every image, by seed; seeds that have none are left out."""
    found = {}
    for run in plan.row_runs(figure.table, key):
        folder = plan.runs_folder / run.path
        gradcam = read_gradcam(folder)
        if gradcam and read_outcome(folder).status == gradcam.status == "completed":
            with suppress(UserError, ValueError):  # not there, or damaged
                content = io.BytesIO(read_sealed(folder / GRADCAM_IMAGES, gradcam.images_sha256))
                frame = pd.read_csv(content, index_col=["index", "label"])
                found[run.seed] = frame.astype(float)
    return found


def _summary(values: list[pd.Series]) -> dict[str, Any]:
    means = [float(value.mean()) for value in values]
    one = len(means) == 1
    interval = bootstrap_interval(values[0].to_list()) if one else t_interval(means)
    low, high = interval or (float("nan"), float("nan"))
    return {
        "mean": round(sum(means) / len(means), 6),
        "ci_low": round(low, 6),
        "ci_high": round(high, 6),
        "interval": IMAGES if one else SEEDS,
        "n_images": len(values[0]),
        "n_seeds": len(means),
    }
