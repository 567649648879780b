"""What detectors find in validation images."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attention_ablation.study.figure import RowsFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from attention_ablation.study.expand import Plan

# A found box is drawn from this score on.
LEAST_SCORE = 0.3
FOUND, TRUE = "#E69F00", "#56B4E9"  # Okabe and Ito's: told apart with any colour vision
COLUMNS = 6
ROOM = 0.1  # of an image's height, for a line of text


class DetectionsFigure(RowsFigure):
    """What detectors of one table find in the first validation images, a line for each row."""

    kind: Literal["detections"]

    def write(self, plan: "Plan", name: str) -> None:
        """Draw what runs of the first seed kept; without any a row has dashes and the reason."""
        from attention_ablation.figures.parts import drawing
        from attention_ablation.runs.folder import read_outcome

        height = 1.35 * len(self.rows) + 1.0
        figure, grid = drawing.image_grid(len(self.rows), COLUMNS, height, first=1.25, pad=0.03)
        labels = {row.key: row.label for row in plan.rows(self.table)}
        for line, key in zip(grid, self.rows, strict=True):
            folder = plan.runs_folder / plan.row_runs(self.table, key)[0].path
            kept, result = read_detections(folder), ""
            metrics = read_outcome(folder).metrics
            if not kept or not metrics:
                result = drawing.why_missing(folder, "detections")
            elif (found := metrics.numbers.get("validation_map_50")) is not None:
                result = f"mAP@.5 {found:.1f} %"
            line[0].text(0, 0.54, textwrap.fill(labels[key], 22), fontsize=9.5, va="bottom")
            line[0].text(0, 0.46, result, fontsize=8.5, color="0.35", va="top")
            for number, ax in enumerate(line[1:]):
                if kept is None or f"image_{number}" not in kept:
                    drawing.draw_dash(ax)
                else:
                    _draw(ax, kept, number)
        caption = (
            f"Blue, dashed: true boxes. Orange: found ones with a score of at least "
            f"{LEAST_SCORE:g}, with class and score. The first {COLUMNS} images of each row's "
            f"validation set. Seed {plan.seeds[0]}."
        )
        drawing.finish_images(plan, name, figure, caption)


def read_detections(folder: Path) -> "dict[str, NDArray[Any]] | None":
    """Return the arrays that a finished run kept, None where they are not what it kept."""
    from attention_ablation.figures.parts.drawing import read_arrays
    from attention_ablation.runs.folder import DETECTIONS, read_outcome

    metrics = read_outcome(folder).metrics
    return read_arrays(folder / DETECTIONS, metrics.detections_sha256 if metrics else None)


def _draw(ax: "Axes", kept: "dict[str, NDArray[Any]]", number: int) -> None:
    from attention_ablation.figures.parts.drawing import draw_box

    image = kept[f"image_{number}"].transpose(1, 2, 0)
    ax.imshow(image)
    for box in kept[f"true_boxes_{number}"]:
        draw_box(ax, box, ec=TRUE, lw=1.3, ls="dashed")
    shown = kept[f"found_scores_{number}"] >= LEAST_SCORE
    found = [kept[f"found_{of}_{number}"][shown] for of in ("boxes", "labels", "scores")]
    for box, label, score in zip(*found, strict=True):
        draw_box(ax, box, ec=FOUND, lw=1.3, ls="solid")
        # Above the box, or at the image's edge inside of it.
        above = box[1] > ROOM * image.shape[0]
        ax.text(
            max(box[0], 0), max(box[1], 0), f"{kept['classes'][label - 1]} {score:.2f}",
            fontsize=6, color="black", va="bottom" if above else "top", clip_on=True,
            bbox={"facecolor": FOUND, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
