"""Error curves: training and validation top-1 error against epoch (the paper's Figure 4)."""

from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_text
from attention_ablation.base.model import Line, Model
from attention_ablation.study.figure import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from attention_ablation.study.expand import Plan


class Panel(Model):
    """One pair of axes of an error-curve figure."""

    title: Line
    table: str
    rows: list[str] = Field(min_length=1)


class CurvesFigure(Figure):
    """Training and validation error against epoch, a panel for each backbone."""

    kind: Literal["error-curves"]
    panels: list[Panel] = Field(min_length=1)

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        """The panels' tables and rows."""
        return [(panel.table, panel.rows) for panel in self.panels]

    @property
    def compared(self) -> list[tuple[str, str, list[str]]]:
        """The rows of each panel."""
        return [(panel.title, panel.table, panel.rows) for panel in self.panels]

    def write(self, plan: "Plan", name: str) -> None:
        """Draw the histories that are there."""
        from attention_ablation.figures.parts.drawing import finish, panels

        figure, axes = panels(len(self.panels), 6)
        for ax, panel in zip(axes, self.panels, strict=True):
            _draw(plan, panel, ax)
        seeds = len(plan.seeds)
        spread = f"mean and range of {seeds} seeds" if seeds > 1 else "one seed"
        finish(plan, name, figure, f"tier {plan.config.tier}: {plan.tier.title}, {spread}")


def _draw(plan: "Plan", panel: Panel, ax: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    from attention_ablation.figures.parts.drawing import COLOURS, STYLES, style_curves

    labels = {row.key: row.label for row in plan.rows(panel.table)}
    for key, colour in zip(panel.rows, cycle(COLOURS), strict=False):
        history, n = _history(plan, panel.table, key)
        if not n:
            ax.plot([], [], color=colour, label=f"{labels[key]}: no run")
            continue
        for split, style in STYLES.items():
            by_epoch = history.groupby("epoch")[f"{split}_top1_error"]
            mean = by_epoch.mean()
            label = f"{labels[key]}, {split}" + (f" (n = {n})" if n < len(plan.seeds) else "")
            ax.plot(mean.index, mean, color=colour, linestyle=style, lw=1.6, label=label)
            if len(plan.seeds) > 1:
                ax.fill_between(
                    mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.15, lw=0
                )
    recipe = plan.specs[panel.table, panel.rows[0]].recipe
    title = f"{panel.title} ({recipe.dataset.name}, {recipe.dataset.image_size} px)"
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    style_curves(ax, title, "top-1 error (%)", ylim=(0, 100), xlim=(0.5, recipe.epochs + 0.5))


def _history(plan: "Plan", table: str, key: str) -> tuple["pd.DataFrame", int]:
    """Return the histories of a row's seeds, one below the other, and how many there are."""
    import pandas as pd

    from attention_ablation.runs.folder import HISTORY
    from attention_ablation.runs.records import parse_history

    columns = ["epoch", "train_top1_error", "validation_top1_error"]
    histories = []
    for run in plan.row_runs(table, key):
        with suppress(UserError):  # missing, or damaged, as `verify` says
            # A history without a row is of a training that has only just started.
            if rows := parse_history(read_text(plan.runs_folder / run.path / HISTORY)):
                histories.append(pd.DataFrame(rows, columns=columns))
    return pd.concat(histories) if histories else pd.DataFrame(), len(histories)
