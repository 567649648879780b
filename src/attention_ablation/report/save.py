"""Figures as files: the same input gives the same file, so that a diff shows a change only."""

import matplotlib as mpl
from matplotlib.figure import Figure

from attention_ablation.study.expand import Plan


def save(plan: Plan, name: str, figure: Figure) -> None:
    """Write `figures/<name>.svg`, its text as text, and `.png`, at 160 dots per inch."""
    folder = plan.folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "attention-ablation", "svg.fonttype": "none"}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=160)
