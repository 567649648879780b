"""Error, or another metric, against GFLOPs and against parameters, of all rows of some tables."""

import math
import textwrap
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError, few, unknown
from attention_ablation.base.model import Names
from attention_ablation.study.figure import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from attention_ablation.figures.parts.labels import Point
    from attention_ablation.study.config import Row, Study
    from attention_ablation.study.expand import Plan

SIZES = ("gflops", "params_m")  # a panel each
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
LOG_FROM = 5  # the largest size over the smallest from which an axis is logarithmic
WIDTH, HEIGHT = 5.6, 4.4  # of a panel, inches
LEFT, BETWEEN, TOP, LINE = 0.75, 0.5, 0.45, 0.17  # inches; the last: a line of text
KEYS = 5  # backbones in a line of the legend
LETTERS = 175  # of a line below the panels


class ComplexityFigure(Figure):
    """A metric against what a network costs: mean and 95 % interval of every row of some tables."""

    run_file: ClassVar[str] = "metrics.json"
    numbers: ClassVar[str] = (
        "{name}: parameters and GFLOPs of the full-size network, mean, 95 % t-interval and number "
        "of seeds of every row"
    )

    kind: Literal["complexity"]
    tables: Names
    metric: str = Field("top1_error", description="A metric of the validation set, by its name.")

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        return [(table, []) for table in self.tables]

    def check(self, study: "Study", where: str) -> None:
        """Raise UserError for a metric that no evaluation gives, and for a table of detectors."""
        valid = [n for n, m in study.metrics.items() if m.source.startswith("validation_")]
        if self.metric not in valid:
            raise unknown("metric", self.metric, valid, where)
        for table in self.tables:
            if any(row.detector for row in study.table_rows(table)):
                raise UserError(
                    f"{where}: expected tables of classification, because the GFLOPs of detectors "
                    f"are not counted, got {table}; leave it out."
                )

    def inputs(self, plan: "Plan") -> list[str]:
        runs = [run for row in self._rows(plan) for run in plan.row_runs(row.table, row.key)]
        files = {f"{plan.runs_folder}/{run.path}/{self.run_file}" for run in runs}
        return [f"{plan.folder}/complexity.csv", *sorted(files)]

    def csv(self, plan: "Plan") -> str:
        return self._points(plan).to_csv(index=False)

    def write(self, plan: "Plan", name: str) -> None:
        from attention_ablation.base.io import write_text
        from attention_ablation.figures.parts.drawing import save

        write_text(plan.folder / f"figures/{name}.csv", self.csv(plan))
        save(plan, name, self.draw(plan, name))

    def draw(self, plan: "Plan", name: str) -> "Drawing":
        """Return the drawing: two panels; below them markers, numbers and the caption."""
        from matplotlib.figure import Figure as Drawing

        from attention_ablation.figures.parts.labels import label_points

        points = self._with_labels(plan, self._points(plan))
        shown = points.dropna(subset=["mean", *SIZES])
        # In inches, because what stands below the panels is known after their labels.
        drawing = Drawing((LEFT + 2 * WIDTH + BETWEEN + 0.15, HEIGHT + TOP))
        panels = [drawing.add_axes((0, 0, 1, 1)) for _ in SIZES]
        _place(drawing, 0)
        styles = _styles(dict(zip(points["backbone"], points["host"], strict=True)))
        drawn = {}
        for ax, size in zip(panels, SIZES, strict=True):
            drawn[ax] = _draw(ax, shown, size, styles)
            ax.set_xlabel(plan.study.metrics[size].title)
        panels[0].set_ylabel(plan.study.metrics[self.metric].title)
        numbered = shown["label"].iloc[label_points(drawn)]
        notes = ";  ".join(
            f"{n}\N{NO-BREAK SPACE}{label}" for n, label in enumerate(numbered, start=1)
        )
        title = self.heading(name) + f" (section {self.section})" * bool(self.section)
        keys = [styles[backbone] for backbone in dict.fromkeys(shown["backbone"])]
        _finish(drawing, title, keys, notes, self._caption(plan, points))
        return drawing

    def _with_labels(self, plan: "Plan", points: "pd.DataFrame") -> "pd.DataFrame":
        """Add what is written of each row: text, host and whether it is the `bare` host.

        A host is the row of a backbone without a gate or front-end. Where its label begins another
        row's, that has only the rest of it at its point.
        """
        from attention_ablation.gates.record import Attention

        rows = self._rows(plan)
        bare = [
            plan.study.attentions[row.attention] == Attention() and not row.front_end
            for row in rows
        ]
        hosts = {row.backbone: row.label for row, host in zip(rows, bare, strict=True) if host}
        names = [hosts.get(row.backbone, row.backbone) for row in rows]
        labels = zip(rows, names, strict=True)
        texts = [row.label.removeprefix(host).strip() or row.label for row, host in labels]
        return points.assign(text=texts, host=names, bare=bare)

    def _rows(self, plan: "Plan") -> list["Row"]:
        """Return the rows, of those with equal specs the first."""
        rows = [row for table in self.tables for row in plan.rows(table)]
        first = {plan.specs[row.table, row.key].canonical(): row for row in reversed(rows)}
        return [row for row in rows if row in first.values()]

    def _points(self, plan: "Plan") -> "pd.DataFrame":
        """Return a line for each row, with its sizes, and what its runs give."""
        import pandas as pd

        from attention_ablation.evidence.complexity import read_counts
        from attention_ablation.evidence.statistics import t_interval
        from attention_ablation.figures.parts.values import any_diverged, row_values

        counts, source = read_counts(plan), plan.study.metrics[self.metric].source
        records = []
        for row in self._rows(plan):
            count = counts.get((row.table, row.key))
            sizes = [count.values[size] if count else None for size in reversed(SIZES)]
            values = row_values(plan, row, source)
            whole = bool(values) and not any_diverged(plan, row)
            low, high = (whole and t_interval(values)) or (None, None)
            mean = sum(values) / len(values) if whole else None
            names = [row.table, row.key, row.label, row.backbone]
            records.append([*names, *sizes, mean, low, high, len(values)])
        numbers = ["mean", "ci_low", "ci_high"]
        names = ["table", "row", "label", "backbone"]
        frame = pd.DataFrame(records, columns=[*names, *reversed(SIZES), *numbers, "n"])
        frame = frame.astype(dict.fromkeys([*SIZES, *numbers], float))
        return frame.round(dict.fromkeys([*SIZES, *numbers], 6))

    def _caption(self, plan: "Plan", points: "pd.DataFrame") -> str:
        """Say what the points are, what was left out, and what to compare with what."""
        seeds = len(plan.seeds)
        spread = f"mean and 95 % interval of {seeds} seeds"
        parts = [
            f"Tier {plan.config.tier}: {plan.tier.title}; "
            + (spread if seeds > 1 else "one seed, so there is no interval")
            + ". Filled: the network without a gate. GFLOPs (multiply-accumulates, in 1e9) and "
            f"parameters are of the full-size network, {plan.study.counted_on.text}."
        ]
        specs = [
            plan.specs[table, row]
            for table, row in zip(points["table"], points["row"], strict=True)
        ]
        recipes = {(spec.recipe.model_dump_json(), spec.backbone.width) for spec in specs}
        if len(recipes) > 1:
            parts.append(
                "The tier trains backbones by different recipes or at different widths: compare "
                "within a backbone."
            )
        labels, known = points["label"], points["mean"].notna()
        if missing := list(labels[~known]):
            parts.append(
                f"Left out, without a completed run or with a diverged one: {few(missing, 12)}."
            )
        some = points[known & (points["n"] < seeds)]
        if fewer := [f"{line.label} has {line.n}" for line in some.itertuples()]:
            parts.append(f"Seeds are missing, of {seeds}: {few(fewer, 12)}.")
        if uncounted := list(labels[points["gflops"].isna() | points["params_m"].isna()]):
            parts.append(
                f"Left out, because complexity.csv has no size of them: {few(uncounted, 12)}; "
                "attention-ablation render complexity counts them."
            )
        return " ".join(parts)


def _styles(hosts: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return colour, marker and legend of each backbone, given with its host's label."""
    from attention_ablation.figures.parts.drawing import COLOURS

    return {
        name: {
            "color": COLOURS[n % len(COLOURS)],
            "marker": MARKERS[n % len(MARKERS)],
            "label": host,
        }
        for n, (name, host) in enumerate(hosts.items())
    }


def _draw(
    ax: "Axes", shown: "pd.DataFrame", size: str, styles: dict[str, dict[str, Any]]
) -> "list[Point]":
    """Draw the markers and bars of a panel; return its points, which are still without labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    from attention_ablation.figures.parts.labels import MARKER, Point

    points = []
    for line in shown.to_dict("records"):
        style: dict[str, Any] = {"ms": MARKER, "mew": 1, "ls": "", "zorder": 3} | styles[
            line["backbone"]
        ]
        style |= {} if line["bare"] else {"mfc": "white"}
        ax.plot(line[size], line["mean"], **style)
        bar = None
        if line["ci_low"] <= line["ci_high"]:
            bar = line["ci_low"], line["ci_high"]
            ax.vlines(line[size], *bar, color=style["color"], lw=0.8)
        points.append(Point(line[size], line["mean"], line["text"], style["color"], bar))
    ax.margins(0.12, 0.08)
    if points and shown[size].max() >= LOG_FROM * shown[size].min() > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    if not points:
        ax.text(0.5, 0.5, "no row has runs yet", ha="center", transform=ax.transAxes)
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())  # as labels are placed, so they stay
    return points


def _place(drawing: "Drawing", below: float) -> None:
    """Give the panels their size, with so many inches below them."""
    width, height = drawing.get_figwidth(), below + HEIGHT + TOP
    drawing.set_figheight(height)
    for n, ax in enumerate(drawing.axes):
        left = LEFT + n * (WIDTH + BETWEEN)
        ax.set_position((left / width, below / height, WIDTH / width, HEIGHT / height))


def _finish(
    drawing: "Drawing",
    title: str,
    styles: list[dict[str, Any]],
    notes: str,
    caption: str,
) -> None:
    """Add the title, and below the panels a legend of backbones, the numbers and the caption."""
    from matplotlib.lines import Line2D

    below = [textwrap.wrap(t, LETTERS, break_on_hyphens=False) for t in (caption, notes)]
    keys = LINE * 1.3 * math.ceil(len(styles) / KEYS)
    edges = [0.1 + LINE * len(below[0])]  # the upper ones, from the page's lower edge
    edges.append(edges[0] + (LINE * len(below[1]) + 0.1) * bool(notes))
    edges.append(edges[1] + keys + 0.1)
    _place(drawing, edges[2] + 0.5)
    width, height = drawing.get_size_inches()
    for lines, edge, colour in zip(below, edges, ("0.35", "black"), strict=False):
        text: dict[str, Any] = {"fontsize": 8, "va": "top", "color": colour}
        drawing.text(LEFT / width, edge / height, "\n".join(lines), **text)
    if styles:
        handles = [Line2D([], [], ls="", ms=5.5, **style) for style in styles]
        labels = [style["label"] for style in styles]
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, edges[2] / height)}
        drawing.legend(handles, labels, ncols=KEYS, fontsize=8, frameon=False, borderpad=0, **place)
    drawing.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
