"""Error, or another metric, against what a table varies: a key of the recipe, such as epochs."""

from itertools import cycle
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.base.model import Line, Model, Names
from attention_ablation.study.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

    from attention_ablation.study.config import Row, Study
    from attention_ablation.study.expand import Plan


class VariedPanel(Model):
    """One pair of axes."""

    title: Line
    rows: Names = Field(description="Rows by backbone, detector and gate, without the @x of times.")


class VariedFigure(Figure):
    """A metric against the key of the recipe that a table varies: mean and 95 % interval."""

    run_file: ClassVar[str] = "metrics.json"
    numbers: ClassVar[str] = (
        "{name}: value of the varied key, mean, 95 % t-interval and number of seeds of every point"
    )

    kind: Literal["against-recipe"]
    table: str
    metric: str = Field("top1_error", description="A metric of runs, by its name.")
    panels: list[VariedPanel] = Field(min_length=1)

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        return [(self.table, [])]

    def compared(self, plan: "Plan") -> list[tuple[str, list["Row"]]]:
        rows = plan.rows(self.table)
        # A point is compared with those above and below it, not with those beside it.
        return [
            (panel.title, [r for r in rows if r.network in panel.rows and (r.times or 1) == times])
            for panel in self.panels
            for times in sorted({row.times or 1 for row in rows})
        ]

    def check(self, study: "Study", where: str) -> None:
        """Raise UserError for a table that varies nothing, an unknown row or a counted metric."""
        if study.tables[self.table].varies is None:
            raise UserError(f"{where}: expected a table that varies a key, got {self.table}.")
        known = {row.network for row in study.table_rows(self.table)}
        for name in (row for panel in self.panels for row in panel.rows):
            if name not in known:
                raise unknown("row", name, known, f"{where}: {self.table}")
        valid = [name for name, metric in study.metrics.items() if not metric.counted]
        if self.metric not in valid:
            raise unknown("metric", self.metric, valid, where)

    def inputs(self, plan: "Plan") -> list[str]:
        shown = {row for panel in self.panels for row in panel.rows}
        rows = [row for row in plan.rows(self.table) if row.network in shown]
        runs = [run for row in rows for run in plan.row_runs(self.table, row.key)]
        return sorted({f"{plan.runs_folder}/{run.path}/{self.run_file}" for run in runs})

    def csv(self, plan: "Plan") -> str:
        return self._points(plan).to_csv(index=False)

    def write(self, plan: "Plan", name: str) -> None:
        from attention_ablation.base.io import write_text
        from attention_ablation.figures.parts.drawing import COLOURS, finish, panels, style_curves

        points = self._points(plan)
        key, metric = self._key(plan), plan.study.metrics[self.metric]
        write_text(plan.folder / f"figures/{name}.csv", points.to_csv(index=False))
        labels = {row.network: row.label for row in reversed(plan.rows(self.table))}  # the first's
        figure, axes = panels(len(self.panels), 5.5)
        top, values = points[["mean", "ci_high"]].max().max() * 1.05, sorted(set(points[key]))
        shown = dict.fromkeys(row for panel in self.panels for row in panel.rows)
        colours = dict(zip(shown, cycle(COLOURS), strict=False))  # the same in every panel
        for ax, panel in zip(axes, self.panels, strict=True):
            for row in panel.rows:
                drawn = points[points["row"] == row]
                style: dict[str, Any] = {"color": colours[row], "label": labels[row]}
                ax.plot(drawn[key], drawn["mean"], "o-", ms=3, lw=1.4, **style)
                ends = drawn["ci_low"], drawn["ci_high"]
                ax.fill_between(drawn[key], *ends, color=colours[row], alpha=0.13, lw=0)
            ax.set_xscale("log", base=2)
            ax.set_xticks(values, values)
            limits: dict[str, Any] = {"xlim": (values[0] / 1.1, values[-1] * 1.1)}
            limits |= {"ylim": (0, top)} if top > 0 else {}
            style_curves(ax, panel.title, metric.title, xlabel=key.replace("_", " "), **limits)
        seeds = len(plan.seeds)
        spread = f"mean and 95 % interval of {seeds} seeds" if seeds > 1 else "one seed"
        finish(plan, name, figure, f"tier {plan.config.tier}: {plan.tier.title}, {spread}")

    def _key(self, plan: "Plan") -> str:
        return str(plan.study.tables[self.table].varies)

    def _points(self, plan: "Plan") -> "pd.DataFrame":
        """Return a line for each row and value of the key, of the runs that completed."""
        import pandas as pd

        from attention_ablation.evidence.statistics import t_interval
        from attention_ablation.figures.parts.values import row_values

        key, source = self._key(plan), plan.study.metrics[self.metric].source
        shown = dict.fromkeys(row for panel in self.panels for row in panel.rows)
        records = []
        for row in (row for row in plan.rows(self.table) if row.network in shown):
            values = row_values(plan, row, source)
            low, high = t_interval(values) or (None, None)
            mean = sum(values) / len(values) if values else None
            value = getattr(plan.specs[self.table, row.key].recipe, key)
            records.append([row.network, value, mean, low, high, len(values)])
        columns = ["row", key, *(numbers := ["mean", "ci_low", "ci_high"]), "n"]
        points = pd.DataFrame(records, columns=columns).sort_values(["row", key])
        return points.astype(dict.fromkeys(numbers, float)).round(dict.fromkeys(numbers, 4))
