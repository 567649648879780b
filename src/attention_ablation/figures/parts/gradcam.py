"""What Grad-CAM says over all images, and its maps of the first image of each class."""

import io
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from attention_ablation.base.errors import UserError
from attention_ablation.evidence.statistics import bootstrap_interval, t_interval
from attention_ablation.figures.parts import drawing
from attention_ablation.runs.folder import GRADCAM_IMAGES, GRADCAM_MAPS, read_gradcam, read_outcome
from attention_ablation.runs.records import GRADCAM_MEANS, GradCam, read_sealed
from attention_ablation.study.expand import Plan
from attention_ablation.study.figure import RowsFigure

Maps = dict[str, NDArray[Any]]
COLUMNS = ["row", "metric", "mean", "ci_low", "ci_high", "interval", "n_images", "n_seeds"]
# Told apart with any colour vision, and in grey: it gets lighter from 0 to 1.
COLOURS = "viridis"
# The image lies over the map as white, this opaque where it is white itself: colours beside the
# target are then those of the scale.
OPACITY = 0.55
SHOWN_MEANS = {"target_probability": "mean P", "energy_in_box": "energy in box"}
# Images in the paper's manner where no map says which ones there are.
PLACEHOLDERS = 10
IMAGES, SEEDS = "bootstrap over images", "t over seeds"


def gradcam_frame(plan: Plan, figure: RowsFigure) -> pd.DataFrame:
    """Return a line for each row and metric, and for each difference to the first row.

    The interval (95 %) of one seed is a bootstrap over its images, which says nothing about other
    seeds; of several it is a t-interval over the seeds' means, empty where they are equal.
    Differences, `<metric>_difference`, are paired by image, and by seed where there are several.
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


def _per_image(plan: Plan, figure: RowsFigure, key: str) -> dict[int, pd.DataFrame]:
    """Return the numbers of every image, by those seeds that have any."""
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


def draw(plan: Plan, figure: RowsFigure, name: str, means: pd.DataFrame) -> None:
    """Draw a line for each row; one without maps has dashes and the reason.

    evidence/explain.py chose the images before anybody saw a map: the first of each class.
    """
    folders = [plan.runs_folder / plan.row_runs(figure.table, key)[0].path for key in figure.rows]
    found = [_read(folder) for folder in folders]
    facts, known = next(filter(None, found), (None, None))
    columns = len(known["label"]) if known else PLACEHOLDERS
    height = 0.98 * len(found) + 2.4
    page, grid = drawing.image_grid(len(found) + 1, columns, height, first=2.3, pad=0.02)
    _label(grid[0, 0], "validation image", "above: its class")
    for number, ax in enumerate(grid[0, 1:]):
        if known:
            image = known["image"][number].transpose(1, 2, 0)
            ax.imshow(image, cmap="gray", vmin=0, vmax=255)
            ax.set_title(str(known["label"][number]), fontsize=10)
        else:
            drawing.draw_dash(ax)
    seeds = means.groupby("row")["n_seeds"].max()
    missing = []
    for row in plan.rows(figure.table):
        if row.key not in figure.rows:
            continue
        place, n = figure.rows.index(row.key), int(seeds.get(row.key, 0))
        _, maps = found[place] or (None, None)
        text = _numbers(means, row.key, n, len(plan.seeds))
        if maps is None:
            text = drawing.why_missing(folders[place], "Grad-CAM")
        _label(grid[place + 1, 0], row.label, text)
        for number, ax in enumerate(grid[place + 1, 1:]):
            if maps is None:
                drawing.draw_dash(ax)
            else:
                _draw_map(ax, maps, number)
        if n < len(plan.seeds):
            missing.append(f"{row.label} has {n} of {len(plan.seeds)}")
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), COLOURS)
    bar = page.colorbar(scale, ax=grid[1:, :], fraction=0.02, pad=0.01)
    bar.set_label("Grad-CAM / its maximum", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    drawing.finish_images(plan, name, page, _caption(plan, means, facts, missing))


def _read(folder: Path) -> tuple[GradCam, Maps] | None:
    """Return what a run's Grad-CAM says, with the maps to show, if it has both."""
    facts = read_gradcam(folder)
    if facts is None or facts.status == "diverged":
        return None
    maps = drawing.read_arrays(folder / GRADCAM_MAPS, facts.maps_sha256)
    return (facts, maps) if maps else None


def _label(ax: Axes, first: str, rest: str) -> None:
    place: dict[str, Any] = {"ha": "left", "transform": ax.transAxes}
    ax.text(0, 0.52, textwrap.fill(first, 24), fontsize=10, va="bottom", **place)
    ax.text(0, 0.46, rest, fontsize=8.5, color="0.35", va="top", **place)


def _draw_map(ax: Axes, shown: Maps, number: int) -> None:
    ax.imshow(shown["map"][number].astype(float), cmap=COLOURS, vmin=0, vmax=1)
    brightness = shown["image"][number].mean(axis=0) / 255
    white = np.ones((*brightness.shape, 4))
    white[..., 3] = OPACITY * brightness
    ax.imshow(white)
    ax.set_xlabel(f"P = {shown['probability'][number]:.2f}", fontsize=8.5, labelpad=2)
    if "box" in shown:
        for colour, width in (("black", 2.4), ("white", 1.2)):  # seen on light and dark places
            drawing.draw_box(ax, shown["box"][number], ec=colour, lw=width)


def _numbers(means: pd.DataFrame, key: str, n: int, seeds: int) -> str:
    lines = []
    for metric, text in SHOWN_MEANS.items():
        for line in means[(means["row"] == key) & (means["metric"] == metric)].to_dict("records"):
            low, high = line["ci_low"], line["ci_high"]
            lines.append(f"{text} {line['mean']:.2f}" + f" [{low:.2f}, {high:.2f}]" * (low <= high))
    return "\n".join(lines + [f"n = {n} of {seeds} seeds"] * (n < seeds))


def _caption(plan: Plan, means: pd.DataFrame, facts: GradCam | None, missing: list[str]) -> str:
    seeds = len(plan.seeds)
    parts = ["P: softmax score of the true class."]
    if facts and facts.map_size and facts.last_map_size:
        height, width = facts.map_size
        parts.append(
            f"Colour: Grad-CAM of the true class at the output of {facts.layer}, "
            f"{height}x{width} places, enlarged and divided by its maximum (all dark: empty)."
        )
        if facts.last_map_size != facts.map_size:
            height, width = facts.last_map_size
            parts.append(
                f"The last convolution's output, which the paper shows, has {height}x{width} here: "
                f"the last one with at least {facts.least_map_size} a side is taken."
            )
        over = f"{facts.images} images" + (f" and {seeds} seeds" if seeds > 1 else ", one seed")
        how = "t-interval over seeds" if seeds > 1 else "bootstrap over images, not trainings"
        parts.append(
            "Images: the first of each class in the validation set, a rule, not a choice. "
            f"Means over {over}, with 95 % interval ({how})."
        )
        if means["ci_low"][means["metric"].isin(SHOWN_MEANS)].isna().any():
            parts.append(
                "Without an interval: equal values, which do not say how far a mean is known."
            )
        if missing:
            parts.append(
                f"Seeds are missing: {', '.join(missing)}; a row's means are over those that are "
                "there, and the interval of a single one is a bootstrap over images."
            )
    if facts and facts.uniform_map is not None:
        parts.append(
            "White frame: the target's box. Energy in box: the share of the map inside it; a map "
            f"without preference has {facts.uniform_map:.2f}."
        )
    return " ".join([*parts, f"Maps of seed {plan.seeds[0]}."])
