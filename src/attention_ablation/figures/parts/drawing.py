"""What kinds of figures share: panels, grids of images, legends, and the files at the end.

The same input gives the same file, so that a diff shows a change only.
"""

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from attention_ablation.base.io import write_bytes
from attention_ablation.base.model import one_line
from attention_ablation.runs.folder import read_outcome
from attention_ablation.runs.records import read_sealed
from attention_ablation.study.expand import Plan

# Okabe and Ito's colours: told apart with any colour vision, and in grey.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
LONGEST = 84  # letters of a legend beside each other
STYLES = {"train": (0, (3, 2)), "validation": "solid"}


def panels(count: int, width: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels beside each other, each `width` inches wide."""
    figure = Figure(figsize=(width * count, 4.6), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def style_curves(ax: Axes, title: str, ylabel: str, **settings: Any) -> None:
    """Give axes of curves, which are drawn, what they all have; a legend is below them."""
    ax.set_title(title, fontsize=10)
    ax.set(**{"xlabel": "epoch", "ylabel": ylabel} | settings)
    ax.grid(color="0.9")
    ax.spines[["top", "right"]].set_visible(False)
    lines = ax.get_lines()  # those too whose label begins with an underscore
    labels = [textwrap.fill(str(line.get_label()), LONGEST) for line in lines]
    # A legend wider than the figure is left out of it, with all its lines.
    columns = max(1, min(3, LONGEST // max(map(len, labels))))
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": columns}
    ax.legend(lines, labels, fontsize=8, frameon=False, borderaxespad=4.2, **place)


def image_grid(
    lines: int, columns: int, height: float, first: float, pad: float
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure, `height` inches high, with a grid of empty axes.

    Beside the `columns` of images is a first one for text, `first` times as wide; `pad` is above
    and below every line, inches.
    """
    figure = Figure(figsize=(10, height))
    figure.set_layout_engine("constrained", h_pad=pad, w_pad=0.02, hspace=0.02, wspace=0.02)
    grid = figure.subplots(lines, columns + 1, squeeze=False, width_ratios=[first] + [1] * columns)
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure, grid


def draw_dash(ax: Axes) -> None:
    ax.text(0.5, 0.5, "-", fontsize=12, ha="center", va="center", transform=ax.transAxes)


def draw_box(ax: Axes, box: NDArray[Any], **style: Any) -> None:
    """Draw the frame of a box, x0, y0, x1, y1 in px, over an image."""
    x0, y0, x1, y1 = box.astype(float)
    ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, **style))


def read_arrays(path: Path, digest: str | None) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a run's file, None where they are not those of the recorded digest."""
    try:
        with np.load(io.BytesIO(read_sealed(path, digest))) as arrays:
            return dict(arrays)
    except Exception:  # numpy raises many kinds for what is no archive of its own
        return None


def why_missing(folder: Path, what: str) -> str:
    """Return why a run has no `what` to show, in a few lines."""
    outcome = read_outcome(folder)
    status = f"run {outcome.status}"
    if outcome.status == "completed":
        status += f", its {what} missing or damaged"
    elif outcome.reason:
        status += f": {outcome.reason}"
    return "\n".join(textwrap.wrap(status, 30, max_lines=3, placeholder=" ..."))


def finish(plan: Plan, name: str, figure: Figure, caption: str, **place: Any) -> None:
    """Give a figure its title and its caption, and save it; `place` is matplotlib's, of text."""
    entry = plan.study.figures[name]
    title = entry.heading(name) + f" (section {entry.section})" * bool(entry.section)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(caption, color="0.35", **({"fontsize": 8} | place))
    save(plan, name, figure)


def finish_images(plan: Plan, name: str, figure: Figure, caption: str) -> None:
    """As `finish`, for a grid of images, whose caption has several lines."""
    caption += f" Tier {plan.config.tier}: {plan.tier.title}."
    caption = "\n".join(textwrap.wrap(caption, 150))
    finish(plan, name, figure, caption, fontsize=8.5, x=0.005, ha="left")


def save(plan: Plan, name: str, figure: Figure) -> None:
    """Write `figures/<name>.svg`, its text as text, and `.png`, at 160 dots per inch.

    Texts are shown as they are: a pair of dollar signs begins no formula.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_text("\n".join(map(one_line, text.get_text().split("\n"))))
    formats: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 160}}
    with mpl.rc_context({"svg.hashsalt": "attention-ablation", "svg.fonttype": "none"}):
        for suffix, options in formats.items():
            content = io.BytesIO()
            figure.savefig(content, format=suffix, **options)
            write_bytes(plan.folder / "figures" / f"{name}.{suffix}", content.getbuffer())
