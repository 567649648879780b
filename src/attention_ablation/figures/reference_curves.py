"""Error curves that others published, in a figure of their own: their recipe is not the tier's."""

import math
from itertools import cycle
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from attention_ablation.base.errors import unknown
from attention_ablation.base.model import Line, Model, Names
from attention_ablation.study.figure import Figure
from attention_ablation.study.references import COLUMNS, Reference, read_curve

if TYPE_CHECKING:
    from attention_ablation.study.config import Study
    from attention_ablation.study.expand import Plan

METRICS = {"train": "train_top1_error", "validation": "top1_error"}


class ReferencePanel(Model):
    """One pair of axes of published error curves."""

    title: Line
    curves: Names = Field(description="Keys of the reference's curves.")


class ReferenceFigure(Figure):
    """Training and validation error against epoch as others published them; it needs no run."""

    kind: Literal["reference-curves"]
    table: str = Field(description="The table with whose selection the figure is drawn.")
    reference: str = Field(description="A key of references.")
    panels: list[ReferencePanel] = Field(min_length=1)

    @property
    def shown(self) -> list[tuple[str, list[str]]]:
        """The table, and no row of it."""
        return [(self.table, [])]

    def check(self, study: "Study", where: str) -> None:
        """Raise UserError for an unknown reference or curve."""
        if self.reference not in study.references:
            raise unknown("reference", self.reference, study.references, where)
        curves = study.references[self.reference].curves
        for curve in (name for panel in self.panels for name in panel.curves):
            if curve not in curves:
                raise unknown("curve", curve, curves, where)

    def inputs(self, plan: "Plan") -> list[str]:
        curves = plan.study.references[self.reference].curves.values()
        return [(plan.study_folder / curve.file).as_posix() for curve in curves]

    def write(self, plan: "Plan", name: str) -> None:
        from attention_ablation.figures.parts.drawing import STYLES, finish, panels, style_curves

        reference = plan.study.references[self.reference]
        curves = {k: read_curve(plan.study_folder / c.file) for k, c in reference.curves.items()}
        limits = _limits([curves[key] for panel in self.panels for key in panel.curves])
        colours = _colours(plan, reference)
        figure, axes = panels(len(self.panels), 7)
        for ax, panel in zip(axes, self.panels, strict=True):
            for key in panel.curves:
                for split, style in STYLES.items():
                    label = f"{reference.curves[key].label}, {split}"
                    x, y = curves[key]["epoch"], curves[key][METRICS[split]]
                    ax.plot(x, y, color=colours[key], linestyle=style, lw=1.2, label=label)
            style_curves(ax, panel.title, "top-1 error (%)", ylim=limits)
        source = f"{reference.title}; {reference.protocol}; one run each"
        finish(plan, name, figure, f"published by others, not runs of this tier: {source}")


def _colours(plan: "Plan", reference: Reference) -> dict[str, str]:
    """Return each curve's colour, that of its gate in all panels; gates in the study's order."""
    from attention_ablation.figures.parts.drawing import COLOURS

    gates = {name: name.partition("+")[2] or "none" for name in reference.curves}
    known = [gate for gate in plan.study.attentions if gate in gates.values()]
    order = dict.fromkeys([*known, *gates.values()])
    by_gate = dict(zip(order, cycle(COLOURS), strict=False))
    return {name: by_gate[gate] for name, gate in gates.items()}


def _limits(curves: list[dict[str, list[float]]]) -> tuple[float, float]:
    """Return the axis' ends: all errors but those of the first twentieth of the epochs."""
    errors = [curve[metric] for curve in curves for metric in COLUMNS]
    values = [value for error in errors for value in error[len(error) // 20 :]]
    return 5 * math.floor(min(values) / 5), 5 * math.ceil(max(values) / 5)
