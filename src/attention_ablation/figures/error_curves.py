"""Error, or another metric, against epoch."""

from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.base.io import read_text
from attention_ablation.base.model import Line, Model
from attention_ablation.study.figure import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from attention_ablation.study.config import Row, Study
    from attention_ablation.study.expand import Plan
    from attention_ablation.study.metrics import Metric


class Panel(Model):
    """One pair of axes of an error-curve figure."""

    title: Line
    table: str
    rows: list[str] = Field(min_length=1)


class CurvesFigure(Figure):
    """Training and validation error against epoch, a panel for each backbone."""

    kind: Literal["error-curves"]
    metric: str = Field(
        "top1_error", description="What is drawn: a metric of the validation set, by its name."
    )
    panels: list[Panel] = Field(min_length=1)

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        return [(panel.table, panel.rows) for panel in self.panels]

    def compared(self, plan: "Plan") -> list[tuple[str, list["Row"]]]:
        return [
            (panel.title, [row for row in plan.rows(panel.table) if row.key in panel.rows])
            for panel in self.panels
        ]

    def check(self, study: "Study", where: str) -> None:
        """Raise UserError for a metric that no evaluation gives."""
        valid = [n for n, m in study.metrics.items() if m.source.startswith("validation_")]
        if self.metric not in valid:
            raise unknown("metric", self.metric, valid, where)

    def write(self, plan: "Plan", name: str) -> None:
        from attention_ablation.figures.parts.drawing import finish, panels

        figure, axes = panels(len(self.panels), 6)
        for ax, panel in zip(axes, self.panels, strict=True):
            _draw(plan, panel, plan.study.metrics[self.metric], ax)
        seeds = len(plan.seeds)
        spread = f"mean and range of {seeds} seeds" if seeds > 1 else "one seed"
        finish(plan, name, figure, f"tier {plan.config.tier}: {plan.tier.title}, {spread}")


def _draw(plan: "Plan", panel: Panel, metric: "Metric", ax: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    from attention_ablation.figures.parts.drawing import COLOURS, STYLES, style_curves

    name = metric.source.removeprefix("validation_")
    labels = {row.key: row.label for row in plan.rows(panel.table)}
    for key, colour in zip(panel.rows, cycle(COLOURS), strict=False):
        history, n = _history(plan, panel.table, key, name)
        if not n:
            ax.plot([], [], color=colour, label=f"{labels[key]}: no run")
            continue
        for split, style in STYLES.items():
            by_epoch = history.dropna(subset=f"{split}_{name}").groupby("epoch")[f"{split}_{name}"]
            mean = by_epoch.mean()
            if mean.empty:  # not recorded of this split
                continue
            label = f"{labels[key]}, {split}" + (f" (n = {n})" if n < len(plan.seeds) else "")
            ax.plot(mean.index, mean, color=colour, linestyle=style, lw=1.6, label=label)
            if len(plan.seeds) > 1:
                ax.fill_between(
                    mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.15, lw=0
                )
    recipe = plan.specs[panel.table, panel.rows[0]].recipe
    title = f"{panel.title} ({recipe.dataset.name}, {recipe.dataset.image_size} px)"
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    label = metric.title[0].lower() + metric.title[1:]
    limits = {"ylim": (0, 100)} if metric.unit == "%" else {}
    style_curves(ax, title, label, xlim=(0.5, recipe.epochs + 0.5), **limits)


def _history(plan: "Plan", table: str, key: str, name: str) -> tuple["pd.DataFrame", int]:
    """Return the histories of a row's seeds, one below the other, and their number."""
    import pandas as pd

    from attention_ablation.runs.folder import HISTORY
    from attention_ablation.runs.records import parse_history

    columns = ["epoch", *(f"{split}_{name}" for split in ("train", "validation"))]
    histories = []
    for run in plan.row_runs(table, key):
        with suppress(UserError):  # missing, or damaged, as `verify` says
            # A history without a row is of a training that has only just started.
            if rows := parse_history(read_text(plan.runs_folder / run.path / HISTORY)):
                histories.append(pd.DataFrame(rows, columns=columns))
    return pd.concat(histories) if histories else pd.DataFrame(), len(histories)
