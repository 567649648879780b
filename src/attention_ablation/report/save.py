"""Figures as files: the same input gives the same file, so that a diff shows a change only."""

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from attention_ablation.study.expand import Plan
from attention_ablation.study.io import write_bytes


def save(plan: Plan, name: str, figure: Figure) -> None:
    """Write `figures/<name>.svg`, its text as text, and `.png`, at 160 dots per inch."""
    kinds: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 160}}
    with mpl.rc_context({"svg.hashsalt": "attention-ablation", "svg.fonttype": "none"}):
        for kind, options in kinds.items():
            content = io.BytesIO()
            figure.savefig(content, format=kind, **options)
            write_bytes(plan.folder / "figures" / f"{name}.{kind}", content.getbuffer())
