"""Grad-CAM of the same images by several rows, beside each other (the paper's Figure 5)."""

import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import write_text
from attention_ablation.base.model import Names
from attention_ablation.study.figure import RowsFigure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from attention_ablation.runs.records import GradCam
    from attention_ablation.study.config import Study
    from attention_ablation.study.expand import Plan

    Maps = dict[str, NDArray[Any]]

# Told apart with any colour vision, and in grey: it gets lighter from 0 to 1.
COLOURS = "viridis"
# The image lies over the map as white, this opaque where it is white itself: colours beside the
# target are then those of the scale.
OPACITY = 0.55
SHOWN_MEANS = {"target_probability": "mean P", "energy_in_box": "energy in box"}
# Images in the paper's manner where no map says which ones there are.
PLACEHOLDERS = 10


class GradCamFigure(RowsFigure):
    """Where rows of one table look: Grad-CAM of the same validation images, a line for each row."""

    run_file: ClassVar[str] = "gradcam.json"
    numbers: ClassVar[str] = (
        "How much of the Grad-CAM maps of {name} is in the target's box, over all validation "
        "images, with 95 % intervals: a line for each row and metric, and for each difference to "
        "the first row."
    )

    kind: Literal["gradcam"]
    rows: Names = Field(
        description="Rows with one backbone; the others are compared with the first."
    )

    def check(self, study: "Study", where: str) -> None:
        """Raise UserError for rows with several backbones."""
        rows = [row for row in study.table_rows(self.table) if row.key in self.rows]
        backbones = list(dict.fromkeys(row.backbone for row in rows))
        if len(backbones) > 1:
            raise UserError(
                f"{where}: expected rows with one backbone, whose maps come from the same images "
                f"and the same layer, got {', '.join(backbones)}; leave some out."
            )

    def csv(self, plan: "Plan") -> str:
        """Return the text of its CSV: means, differences to the first row, and intervals."""
        from attention_ablation.figures.parts.gradcam_means import gradcam_frame

        return gradcam_frame(plan, self).to_csv(index=False)

    def write(self, plan: "Plan", name: str) -> None:
        """Draw the maps that are there, of the first seed, and write the CSV.

        The images are chosen by evidence/explain.py, before anybody has seen a map: the first of
        each class. A row without maps has dashes and the reason.
        """
        from attention_ablation.figures.parts import drawing
        from attention_ablation.figures.parts.gradcam_means import gradcam_frame

        means = gradcam_frame(plan, self)
        write_text(plan.folder / "figures" / f"{name}.csv", means.to_csv(index=False))
        folders = [plan.runs_folder / plan.row_runs(self.table, key)[0].path for key in self.rows]
        found = [_read(folder) for folder in folders]
        facts, known = next(filter(None, found), (None, None))
        columns = len(known["label"]) if known else PLACEHOLDERS
        height = 0.98 * len(self.rows) + 2.4
        figure, grid = drawing.image_grid(len(found) + 1, columns, height, first=2.3, pad=0.02)
        _label(grid[0, 0], "validation image", "above: its class")
        _draw_line(grid[0, 1:], known, _draw_image)
        seeds = means.groupby("row")["n_seeds"].max()
        missing = []
        for row in (row for row in plan.rows(self.table) if row.key in self.rows):
            number, n = self.rows.index(row.key), int(seeds.get(row.key, 0))
            _, maps = found[number] or (None, None)
            text = _numbers(means, row.key, n, len(plan.seeds))
            if maps is None:
                text = drawing.why_missing(folders[number], "Grad-CAM")
            _label(grid[number + 1, 0], row.label, text)
            _draw_line(grid[number + 1, 1:], maps, _draw_map)
            if n < len(plan.seeds):
                missing.append(f"{row.label} has {n} of {len(plan.seeds)}")
        _draw_scale(figure, grid[1:, :])
        drawing.finish_images(plan, name, figure, _caption(plan, means, facts, missing))


def _read(folder: Path) -> "tuple[GradCam, Maps] | None":
    """Return what a run's Grad-CAM says, with the maps to show, None where there are none."""
    from attention_ablation.figures.parts.drawing import read_arrays
    from attention_ablation.runs.folder import GRADCAM_MAPS, read_gradcam

    facts = read_gradcam(folder)
    if facts is None or facts.status == "diverged":
        return None
    maps = read_arrays(folder / GRADCAM_MAPS, facts.maps_sha256)
    return (facts, maps) if maps else None


def _label(ax: "Axes", first: str, rest: str) -> None:
    place: dict[str, Any] = {"ha": "left", "transform": ax.transAxes}
    ax.text(0, 0.52, textwrap.fill(first, 24), fontsize=10, va="bottom", **place)
    ax.text(0, 0.46, rest, fontsize=8.5, color="0.35", va="top", **place)


def _draw_line(
    axes: Iterable["Axes"], shown: "Maps | None", draw: Callable[["Axes", "Maps", int], None]
) -> None:
    from attention_ablation.figures.parts.drawing import draw_dash

    for number, ax in enumerate(axes):
        if shown is None:
            draw_dash(ax)
        else:
            draw(ax, shown, number)


def _draw_image(ax: "Axes", shown: "Maps", number: int) -> None:
    ax.imshow(shown["image"][number].transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
    ax.set_title(str(shown["label"][number]), fontsize=10)


def _draw_map(ax: "Axes", shown: "Maps", number: int) -> None:
    import numpy as np

    from attention_ablation.figures.parts.drawing import draw_box

    ax.imshow(shown["map"][number].astype(float), cmap=COLOURS, vmin=0, vmax=1)
    brightness = shown["image"][number].mean(axis=0) / 255
    white = np.ones((*brightness.shape, 4))
    white[..., 3] = OPACITY * brightness
    ax.imshow(white)
    ax.set_xlabel(f"P = {shown['probability'][number]:.2f}", fontsize=8.5, labelpad=2)
    if "box" in shown:
        for colour, width in (("black", 2.4), ("white", 1.2)):  # seen on light and dark places
            draw_box(ax, shown["box"][number], ec=colour, lw=width)


def _draw_scale(figure: Any, axes: Any) -> None:
    import matplotlib as mpl

    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), COLOURS)
    bar = figure.colorbar(scale, ax=axes, fraction=0.02, pad=0.01)
    bar.set_label("Grad-CAM / its maximum", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _numbers(means: "pd.DataFrame", key: str, n: int, seeds: int) -> str:
    lines = []
    for metric, text in SHOWN_MEANS.items():
        for line in means[(means["row"] == key) & (means["metric"] == metric)].to_dict("records"):
            low, high = line["ci_low"], line["ci_high"]
            lines.append(f"{text} {line['mean']:.2f}" + f" [{low:.2f}, {high:.2f}]" * (low <= high))
    return "\n".join(lines + [f"n = {n} of {seeds} seeds"] * (n < seeds))


def _caption(
    plan: "Plan", means: "pd.DataFrame", facts: "GradCam | None", missing: list[str]
) -> str:
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
