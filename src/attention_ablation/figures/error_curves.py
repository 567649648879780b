"""Error curves: training and validation error, or another metric, against epoch."""

import textwrap
from contextlib import suppress
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_text
from attention_ablation.figures.save import save
from attention_ablation.runs.folder import HISTORY
from attention_ablation.runs.records import parse_history
from attention_ablation.study.config import CurvesFigure, Panel
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import Metric

# Okabe and Ito's colours: told apart with any colour vision, and in grey.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#CC79A7")
LONGEST = 84  # letters of a legend beside each other
STYLES = {"train": (0, (3, 2)), "validation": "solid"}


def write_figure(plan: Plan, name: str) -> None:
    """Write `figures/<name>.svg` and `.png`, from the histories that are there."""
    entry = plan.study.figures[name]
    assert isinstance(entry, CurvesFigure)
    figure = Figure(figsize=(6 * len(entry.panels), 4.6), layout="constrained")
    axes = figure.subplots(1, len(entry.panels), squeeze=False)[0]
    for ax, panel in zip(axes, entry.panels, strict=True):
        _draw(plan, panel, plan.study.metrics[entry.metric], ax)
    figure.suptitle(
        f"Figure {name.removeprefix('figure')}. {entry.title} (section {entry.section})",
        fontsize=11,
    )
    seeds = len(plan.seeds)
    spread = f", mean and range of {seeds} seeds" if seeds > 1 else ", one seed"
    figure.supxlabel(
        f"tier {plan.config.tier}: {plan.tier.title}{spread}",
        fontsize=8,
        color="0.35",
    )
    save(plan, name, figure)


def _draw(plan: Plan, panel: Panel, metric: Metric, ax: Axes) -> None:
    name = metric.source.removeprefix("validation_")
    for key, colour in zip(panel.rows, cycle(COLOURS), strict=False):
        row = next(row for row in plan.rows(panel.table) if row.key == key)
        histories = _histories(plan, panel.table, key, name)
        history, n = (pd.concat(histories) if histories else pd.DataFrame()), len(histories)
        if history.empty:
            ax.plot([], [], color=colour, label=f"{row.label}: no run")
            continue
        for split, style in STYLES.items():
            by_epoch = history.dropna(subset=f"{split}_{name}").groupby("epoch")[f"{split}_{name}"]
            mean = by_epoch.mean()
            if mean.empty:  # not recorded of this split
                continue
            label = f"{row.label}, {split}" + (f" (n = {n})" if n < len(plan.seeds) else "")
            ax.plot(mean.index, mean, color=colour, linestyle=style, lw=1.6, label=label)
            if len(plan.seeds) > 1:
                ax.fill_between(
                    mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.15, lw=0
                )
    recipe = plan.specs[panel.table, panel.rows[0]].recipe
    ax.set_title(
        f"{panel.title} ({recipe.dataset.name}, {recipe.dataset.image_size} px)", fontsize=10
    )
    label = metric.title[0].lower() + metric.title[1:]
    ax.set(xlabel="epoch", ylabel=label, xlim=(0.5, recipe.epochs + 0.5))
    if metric.unit == "%":
        ax.set_ylim(0, 100)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(color="0.9")
    ax.spines[["top", "right"]].set_visible(False)
    draw_legend(ax)


def draw_legend(ax: Axes) -> None:
    """Name the lines below their axes, those too whose label begins with an underscore."""
    lines = ax.get_lines()
    labels = [textwrap.fill(str(line.get_label()), LONGEST) for line in lines]
    # A legend wider than the figure is left out of it, with all its lines.
    columns = max(1, min(3, LONGEST // max(map(len, labels))))
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": columns}
    ax.legend(lines, labels, fontsize=8, frameon=False, borderaxespad=4.2, **place)


def _histories(plan: Plan, table: str, key: str, name: str) -> list[pd.DataFrame]:
    columns = ["epoch", *(f"{split}_{name}" for split in STYLES)]
    histories = []
    for run in plan.row_runs(table, key):
        with suppress(UserError):  # missing, or damaged, as `verify` says
            rows = parse_history(read_text(plan.runs_folder / run.path / HISTORY))
            histories.append(pd.DataFrame(rows, columns=columns))
    # A history without a row is of a training that has only just started.
    return [history for history in histories if len(history)]
