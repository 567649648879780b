"""Figures as files: the same input gives the same file, so that a diff shows a change only."""

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text

from attention_ablation.base.io import write_bytes
from attention_ablation.base.model import one_line
from attention_ablation.study.expand import Plan


def save(plan: Plan, name: str, figure: Figure) -> None:
    """Write `figures/<name>.svg`, its text as text, and `.png`, at 160 dots per inch.

    Texts are shown as they are: a pair of dollar signs begins no formula.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_text("\n".join(map(one_line, text.get_text().split("\n"))))
    kinds: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 160}}
    with mpl.rc_context({"svg.hashsalt": "attention-ablation", "svg.fonttype": "none"}):
        for kind, options in kinds.items():
            content = io.BytesIO()
            figure.savefig(content, format=kind, **options)
            write_bytes(plan.folder / "figures" / f"{name}.{kind}", content.getbuffer())
