"""What detectors find in the same validation images, a line for each row."""

import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from attention_ablation.figures.gradcam import why_missing
from attention_ablation.figures.save import save
from attention_ablation.runs.folder import DETECTIONS, read_outcome
from attention_ablation.runs.records import read_sealed
from attention_ablation.study.config import DetectionsFigure
from attention_ablation.study.expand import Plan

Kept = dict[str, NDArray[Any]]
# A found box is drawn from this score on.
LEAST_SCORE = 0.3
FOUND, TRUE = "#E69F00", "#56B4E9"  # Okabe and Ito's: told apart with any colour vision
COLUMNS = 6
ROOM = 0.1  # of an image's height, for a line of text


def write_detections(plan: Plan, name: str) -> None:
    """Write `figures/<name>.svg` and `.png`, from what finished runs kept.

    The images are the first of the validation set. A row without a finished run of the first seed
    has dashes and the reason.
    """
    entry = plan.study.figures[name]
    assert isinstance(entry, DetectionsFigure)
    figure = Figure(figsize=(10, 1.35 * len(entry.rows) + 1.0))
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.02, hspace=0.02, wspace=0.02)
    grid = figure.subplots(
        len(entry.rows), COLUMNS + 1, squeeze=False, width_ratios=[1.25] + [1] * COLUMNS
    )
    for line, key in zip(grid, entry.rows, strict=True):
        run = plan.row_runs(entry.table, key)[0]
        folder = plan.runs_folder / run.path
        kept = read_detections(folder)
        label = next(row.label for row in plan.rows(entry.table) if row.key == key)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].text(0, 0.54, textwrap.fill(label, 22), fontsize=9.5, va="bottom")
        said = _result(folder) if kept else why_missing(folder, "detections")
        line[0].text(0, 0.46, said, fontsize=8.5, color="0.35", va="top")
        for number, ax in enumerate(line[1:]):
            _draw(ax, kept, number)
    figure.suptitle(f"{entry.title} (section {entry.section})", fontsize=11)
    caption = (
        f"Blue, dashed: true boxes. Orange: found ones with a score of at least {LEAST_SCORE:g}, "
        f"with class and score. The first {COLUMNS} images of the validation set. Seed "
        f"{plan.seeds[0]}. Tier {plan.config.tier}: {plan.tier.title}."
    )
    caption = "\n".join(textwrap.wrap(caption, 150))
    figure.supxlabel(caption, fontsize=8.5, color="0.35", x=0.005, ha="left")
    save(plan, name, figure)


def read_detections(folder: Path) -> Kept | None:
    """Return the arrays that a finished run kept, None where they are not what it kept."""
    metrics = read_outcome(folder).metrics
    try:
        digest = metrics.detections_sha256 if metrics else None
        content = read_sealed(folder / DETECTIONS, digest)
        with np.load(io.BytesIO(content)) as arrays:
            return dict(arrays)
    except Exception:  # numpy raises many kinds for what is no archive of its own
        return None


def _result(folder: Path) -> str:
    metrics = read_outcome(folder).metrics
    found = metrics.numbers.get("validation_map_50") if metrics else None
    return "" if found is None else f"mAP@.5 {found:.1f} %"


def _draw(ax: Axes, kept: Kept | None, number: int) -> None:
    if kept is None or f"image_{number}" not in kept:
        ax.text(0.5, 0.5, "-", fontsize=12, ha="center", va="center", transform=ax.transAxes)
        return
    image = kept[f"image_{number}"].transpose(1, 2, 0)
    ax.imshow(image)
    for box in kept[f"true_boxes_{number}"]:
        _frame(ax, box, TRUE, "dashed")
    shown = kept[f"found_scores_{number}"] >= LEAST_SCORE
    for box, label, score in zip(
        kept[f"found_boxes_{number}"][shown],
        kept[f"found_labels_{number}"][shown],
        kept[f"found_scores_{number}"][shown],
        strict=True,
    ):
        _frame(ax, box, FOUND, "solid")
        name = str(kept["classes"][label - 1])
        # Above the box, or at the image's edge inside of it.
        above = box[1] > ROOM * image.shape[0]
        ax.text(
            max(box[0], 0), max(box[1], 0), f"{name} {score:.2f}", fontsize=6, color="black",
            va="bottom" if above else "top", clip_on=True,
            bbox={"facecolor": FOUND, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def _frame(ax: Axes, box: NDArray[Any], colour: str, style: str) -> None:
    x0, y0, x1, y1 = box.astype(float)
    ax.add_patch(
        Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=colour, lw=1.3, ls=style)
    )
