"""Grad-CAM of the same images by several rows, beside each other (the paper's Figure 5)."""

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from attention_ablation.base.io import write_text
from attention_ablation.figures.gradcam_means import gradcam_frame
from attention_ablation.figures.save import save
from attention_ablation.runs.folder import GRADCAM_MAPS, read_gradcam, read_outcome
from attention_ablation.runs.records import GradCam, read_sealed
from attention_ablation.study.config import GradCamFigure
from attention_ablation.study.expand import Plan

Shown = dict[str, NDArray[Any]]
# Told apart with any colour vision, and in grey: it gets lighter from 0 to 1.
COLOURS = "viridis"
# The image lies over the map as white, this opaque where it is white itself: colours beside the
# target are then those of the scale.
OPACITY = 0.55
DASH = "-"
SHOWN_MEANS = {"target_probability": "mean P", "energy_in_box": "energy in box"}
# Images in the paper's manner where no map says which ones there are.
PLACEHOLDERS = 10


def write_gradcam(plan: Plan, name: str) -> None:
    """Write `figures/<name>.svg`, `.png` and `.csv`, from the maps that are there.

    The images are chosen by evidence/explain.py, before anybody has seen a map: the first of each
    class. A row without maps has dashes and the reason.
    """
    entry = plan.study.figures[name]
    assert isinstance(entry, GradCamFigure)
    means = gradcam_frame(plan, entry)
    write_text(plan.folder / "figures" / f"{name}.csv", means.to_csv(index=False))
    save(plan, name, _draw(plan, name, entry, means))


def _draw(plan: Plan, name: str, entry: GradCamFigure, means: pd.DataFrame) -> Figure:
    # The first seed's maps, whichever seeds are there.
    folders = [plan.runs_folder / plan.row_runs(entry.table, key)[0].path for key in entry.rows]
    maps = [_read(folder) for folder in folders]
    known = next((shown for shown in maps if shown), None)
    columns = len(known["label"]) if known else PLACEHOLDERS
    figure = Figure(figsize=(10, 0.98 * len(entry.rows) + 2.4))
    figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.02, hspace=0.02, wspace=0.02)
    grid = figure.subplots(
        len(entry.rows) + 1, columns + 1, squeeze=False, width_ratios=[2.3] + [1] * columns
    )
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    _label(grid[0, 0], "validation image", "above: its class")
    for number in range(columns):
        _draw_image(grid[0, number + 1], known, number)
        if known:
            grid[0, number + 1].set_title(str(known["label"][number]), fontsize=10)
    for line, key, folder, shown in zip(grid[1:], entry.rows, folders, maps, strict=True):
        label = next(row.label for row in plan.rows(entry.table) if row.key == key)
        _label(
            line[0],
            label,
            _numbers(means, key, len(plan.seeds)) if shown else why_missing(folder, "Grad-CAM"),
        )
        for number in range(columns):
            _draw_map(line[number + 1], shown, number)
    bar = figure.colorbar(
        mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), COLOURS),
        ax=grid[1:, :],
        fraction=0.02,
        pad=0.01,
    )
    bar.set_label("Grad-CAM / its maximum", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(
        f"Figure {name.removeprefix('figure')}. {entry.title} (section {entry.section})",
        fontsize=11,
    )
    facts = next((read_gradcam(folder) for folder, m in zip(folders, maps, strict=True) if m), None)
    figure.supxlabel(
        _caption(plan, entry, means, facts), fontsize=8.5, color="0.35", x=0.005, ha="left"
    )
    return figure


def _read(folder: Path) -> Shown | None:
    """Return a run's maps to show, None where there are none."""
    found = read_gradcam(folder)
    if found is None or found.status == "diverged":
        return None
    try:
        content = io.BytesIO(read_sealed(folder / GRADCAM_MAPS, found.maps_sha256))
        with np.load(content) as arrays:
            return dict(arrays)
    except Exception:  # numpy raises many kinds for what is no archive of its own
        return None


def _label(ax: Axes, first: str, rest: str) -> None:
    place: dict[str, Any] = {"ha": "left", "transform": ax.transAxes}
    ax.text(0, 0.52, textwrap.fill(first, 24), fontsize=10, va="bottom", **place)
    ax.text(0, 0.46, rest, fontsize=8.5, color="0.35", va="top", **place)


def _draw_image(ax: Axes, shown: Shown | None, number: int) -> None:
    if not shown:
        _draw_dash(ax)
        return
    image = shown["image"][number].transpose(1, 2, 0)
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)


def _draw_dash(ax: Axes) -> None:
    ax.text(0.5, 0.5, DASH, fontsize=12, ha="center", va="center", transform=ax.transAxes)


def _draw_map(ax: Axes, shown: Shown | None, number: int) -> None:
    if not shown:
        _draw_dash(ax)
        return
    ax.imshow(shown["map"][number].astype(float), cmap=COLOURS, vmin=0, vmax=1)
    brightness = shown["image"][number].mean(axis=0) / 255
    white = np.ones((*brightness.shape, 4))
    white[..., 3] = OPACITY * brightness
    ax.imshow(white)
    ax.set_xlabel(f"P = {shown['probability'][number]:.2f}", fontsize=8.5, labelpad=2)
    if "box" in shown:
        x0, y0, x1, y1 = shown["box"][number].astype(float)
        for colour, width in (("black", 2.4), ("white", 1.2)):  # seen on light and dark places
            ax.add_patch(
                Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=colour, lw=width)
            )


def _numbers(means: pd.DataFrame, key: str, seeds: int) -> str:
    lines = []
    there = _seeds(means, key)
    for metric, text in SHOWN_MEANS.items():
        for mean in means[(means["row"] == key) & (means["metric"] == metric)].to_dict("records"):
            interval = f" [{mean['ci_low']:.2f}, {mean['ci_high']:.2f}]"
            lines.append(f"{text} {mean['mean']:.2f}" + interval * bool(pd.notna(mean["ci_low"])))
    if there < seeds:
        lines.append(f"n = {there} of {seeds} seeds")
    return "\n".join(lines)


def _seeds(means: pd.DataFrame, key: str) -> int:
    """Return how many seeds a row's means are over."""
    found = means.loc[means["row"] == key, "n_seeds"]
    return 0 if found.empty else int(found.max())


def _short(plan: Plan, entry: GradCamFigure, means: pd.DataFrame) -> list[str]:
    """Return the rows that have fewer seeds than the plan, and how many."""
    wanted = len(plan.seeds)
    there = {
        row.label: _seeds(means, row.key) for row in plan.rows(entry.table) if row.key in entry.rows
    }
    return [f"{label} has {n} of {wanted}" for label, n in there.items() if n < wanted]


def why_missing(folder: Path, what: str) -> str:
    """Return why a run has nothing to show, in a few lines; `what` is what a finished run has."""
    outcome = read_outcome(folder)
    status = f"run {outcome.status}"
    if outcome.status == "completed":
        status += f", its {what} missing or damaged"
    elif outcome.reason:
        status += f": {outcome.reason}"
    return "\n".join(textwrap.wrap(status, 30, max_lines=3, placeholder=" ..."))


def _caption(plan: Plan, entry: GradCamFigure, means: pd.DataFrame, facts: GradCam | None) -> str:
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
        parts.append("Images: the first of each class in the validation set, a rule, not a choice.")
        over = f"{facts.images} images" + (f" and {seeds} seeds" if seeds > 1 else ", one seed")
        kind = "t-interval over seeds" if seeds > 1 else "bootstrap over images, not trainings"
        parts.append(f"Means over {over}, with 95 % interval ({kind}).")
        if means["ci_low"][means["metric"].isin(SHOWN_MEANS)].isna().any():
            parts.append(
                "Without an interval: equal values, which do not say how far a mean is known."
            )
        if short := _short(plan, entry, means):
            parts.append(
                f"Seeds are missing: {', '.join(short)}; a row's means are over those that are "
                "there, and the interval of a single one is a bootstrap over images."
            )
    if facts and facts.uniform_map is not None:
        parts.append(
            "White frame: the target's box. Energy in box: the share of the map inside it; a map "
            f"without preference has {facts.uniform_map:.2f}."
        )
    parts.append(f"Maps of seed {plan.seeds[0]}. Tier {plan.config.tier}: {plan.tier.title}.")
    return "\n".join(textwrap.wrap(" ".join(parts), 150))
