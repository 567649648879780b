"""A forest plot: every comparison of the claims that was made on runs, with its interval."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.base.io import Missing, read_text, write_text
from attention_ablation.base.model import Names
from attention_ablation.study.figure import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from attention_ablation.study.config import Study
    from attention_ablation.study.expand import Plan
    from attention_ablation.study.metrics import Metric

COLUMNS = (
    *("claim", "table", "metric", "comparison", "difference", "ci_low", "ci_high", "n"),
    *("verdict", "margin"),
)
# Okabe and Ito's colours, and a marker each.
VERDICTS = {
    "supported": ("#009E73", "o"),
    "contradicted": ("#D55E00", "X"),
    "equivalent": ("#0072B2", "s"),
    "undecided": ("#777777", "D"),
}
LINE, AROUND = 0.16, 1.5  # inches: of a comparison, and of what is above and below all


class ForestFigure(Figure):
    """The comparisons of claims.csv by claim: difference, 95 % interval, margin and verdict."""

    numbers: ClassVar[str] = (
        "{name}: difference, its 95 % interval, n, verdict and margin of every comparison of the "
        "claims that was made on runs; a part of claims.csv."
    )
    of_claims: ClassVar[bool] = True

    kind: Literal["forest"]
    metrics: Names | None = Field(
        None,
        description="Metrics of runs of one unit, whose comparisons are shown; null: all in %.",
    )

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        """No table: it is drawn whichever are selected."""
        return []

    def check(self, study: "Study", where: str) -> None:
        """Raise UserError where there are no claims, and for metrics that share no axis."""
        if not study.claims:
            raise UserError(
                f"{where}: expected a study with claims to draw; write a claims.yaml, or remove "
                "the figure."
            )
        valid = [name for name, metric in study.metrics.items() if not metric.counted]
        for name in self.metrics or []:
            if name not in valid:
                raise unknown("metric", name, valid, where)
        units = {study.metrics[name].unit or "no unit" for name in self.metrics or []}
        if len(units) > 1:
            raise UserError(
                f"{where}: expected metrics of one unit, which share an axis, got "
                f"{', '.join(sorted(units))}; make it a figure for each."
            )

    def inputs(self, plan: "Plan") -> list[str]:
        return [f"{plan.folder}/claims.csv"]

    def csv(self, plan: "Plan") -> str:
        return self._comparisons(plan).to_csv(index=False)

    def write(self, plan: "Plan", name: str) -> None:
        from matplotlib.figure import Figure as Drawing

        from attention_ablation.figures.parts.drawing import finish

        found, metrics = self._comparisons(plan), self._metrics(plan)
        write_text(plan.folder / f"figures/{name}.csv", found.to_csv(index=False))
        lines = len(found) + found["claim"].nunique()
        drawing = Drawing(figsize=(10, AROUND + LINE * max(lines, 4)), layout="constrained")
        ax = drawing.subplots()
        _draw(ax, found, {name: metric.heading for name, metric in metrics.items()})
        unit = next(iter(metrics.values())).points.strip() if metrics else ""
        ax.set_xlabel("difference" + f" ({unit})" * bool(unit), fontsize=8)
        bars = "bars: 95 % interval of each comparison by itself; verdicts are after correction"
        finish(plan, name, drawing, f"tier {plan.config.tier}: {plan.tier.title}; {bars}")

    def _metrics(self, plan: "Plan") -> dict[str, "Metric"]:
        """Return the metrics whose comparisons are shown, by name."""
        return {
            name: metric
            for name, metric in plan.study.metrics.items()
            if (name in self.metrics if self.metrics else metric.unit == "%") and not metric.counted
        }

    def _comparisons(self, plan: "Plan") -> "pd.DataFrame":
        """Return the lines of claims.csv that are shown, as the text that is there."""
        import io

        import pandas as pd

        path = plan.folder / "claims.csv"
        expected = f"{path}: expected what `attention-ablation render claims` writes"
        try:
            text = read_text(path)
        except Missing:
            raise UserError(f"{expected}; there is no file.") from None
        try:
            ledger = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
            made = (ledger["difference"] != "") & (ledger["published"] == "")
            found = ledger.loc[made & ledger["metric"].isin(self._metrics(plan)), list(COLUMNS)]
            found[["difference", "ci_low", "ci_high", "margin"]].replace("", "nan").astype(float)
        except (KeyError, ValueError, pd.errors.ParserError):
            raise UserError(f"{expected}; it has other columns, or no numbers.") from None
        return found


def _draw(ax: "Axes", found: "pd.DataFrame", headings: dict[str, str]) -> None:
    """Draw a line for each comparison, below its claim's key."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    labels: list[str] = []
    keys: list[int] = []
    claim = None
    entries: dict[str, Artist] = {}
    for line in found.to_dict("records"):
        if line["claim"] != claim:
            claim = line["claim"]
            keys.append(len(labels))
            labels.append(claim)
        y = len(labels)
        labels.append(f"{line['comparison']}, {headings[line['metric']]}")
        if line["margin"]:
            margin = float(line["margin"])
            ax.barh(y, 2 * margin, left=-margin, height=1, color="#0072B2", alpha=0.12, lw=0)
            entries["margin"] = Patch(color="#0072B2", alpha=0.12, lw=0)
        colour, marker = VERDICTS[line["verdict"]]
        style: dict[str, Any] = {"color": colour, "marker": marker, "ms": 4.5, "ls": ""}
        style |= {"mfc": "white"} if line["verdict"] == "undecided" else {}
        if line["ci_low"]:
            ends = [float(line["ci_low"]), float(line["ci_high"])]
            ax.plot(ends, [y, y], color=colour, lw=1.2, solid_capstyle="butt")
        ax.plot(float(line["difference"]), y, **style)
        entries[line["verdict"]] = Line2D([], [], **style)
    ax.axvline(0, color="0.3", lw=0.8, zorder=1.5)
    ax.set_yticks(range(len(labels)), labels, fontsize=7)
    ticks = ax.get_yticklabels()
    for key in keys:
        ticks[key].set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if not labels:
        ax.text(0.5, 0.5, "no comparison has runs yet", ha="center", transform=ax.transAxes)
        return
    shown = {name: entries[name] for name in (*VERDICTS, "margin") if name in entries}
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(shown)}
    ax.legend(shown.values(), shown.keys(), fontsize=8, frameon=False, **place)
