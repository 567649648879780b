"""Error curves that others published, in a figure of their own: their recipe is not the tier's."""

import math
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_ablation.figures.error_curves import COLOURS, STYLES, draw_legend
from attention_ablation.figures.save import save
from attention_ablation.study.config import ReferenceFigure
from attention_ablation.study.expand import Plan
from attention_ablation.study.references import COLUMNS, Reference, read_curve

SPLITS = {"train": "train_top1_error", "validation": "top1_error"}


def write_reference(plan: Plan, name: str) -> None:
    """Write `figures/<name>.svg` and `.png`; no run is needed."""
    entry = plan.study.figures[name]
    assert isinstance(entry, ReferenceFigure)
    reference = plan.study.references[entry.reference]
    curves = {k: read_curve(plan.study_folder / c.file) for k, c in reference.curves.items()}
    figure = Figure(figsize=(7 * len(entry.panels), 4.6), layout="constrained")
    axes = figure.subplots(1, len(entry.panels), squeeze=False)[0]
    colours = _colours(plan, reference)
    shown = [curves[key] for panel in entry.panels for key in panel.curves]
    for ax, panel in zip(axes, entry.panels, strict=True):
        for key in panel.curves:
            _draw(ax, curves[key], reference.curves[key].label, colours[key])
        ax.set(title=panel.title, xlabel="epoch", ylabel="top-1 error (%)", ylim=_limits(shown))
        ax.title.set_fontsize(10)
        ax.grid(color="0.9")
        ax.spines[["top", "right"]].set_visible(False)
        draw_legend(ax)
    figure.suptitle(
        f"Figure {name.removeprefix('figure')}. {entry.title} (section {entry.section})",
        fontsize=11,
    )
    figure.supxlabel(
        f"published by others, not runs of this tier: {reference.title}; {reference.protocol}; "
        "one run each",
        fontsize=8,
        color="0.35",
    )
    save(plan, name, figure)


def _draw(ax: Axes, curve: dict[str, list[float]], label: str, colour: str) -> None:
    for split, style in STYLES.items():
        errors = curve[COLUMNS[SPLITS[split]]]
        text = f"{label}, {split}"
        ax.plot(curve["epoch"], errors, color=colour, linestyle=style, lw=1.2, label=text)


def _colours(plan: Plan, reference: Reference) -> dict[str, str]:
    """Return each curve's colour, that of its gate in all panels; gates in the study's order."""
    order = [*plan.study.attentions]
    gates = {name: name.partition("+")[2] or "none" for name in reference.curves}
    known = [gate for gate in order if gate in gates.values()]
    known += [gate for gate in dict.fromkeys(gates.values()) if gate not in order]
    by_gate = dict(zip(known, cycle(COLOURS), strict=False))
    return {name: by_gate[gate] for name, gate in gates.items()}


def _limits(curves: list[dict[str, list[float]]]) -> tuple[float, float]:
    """Return the axis' ends: all errors but those of the first twentieth of the epochs."""
    values = [
        value
        for curve in curves
        for column in COLUMNS.values()
        for value in curve[column][len(curve[column]) // 20 :]
    ]
    return 5 * math.floor(min(values) / 5), 5 * math.ceil(max(values) / 5)
