"""A table as LaTeX."""

import re
from collections.abc import Sequence

import pandas as pd

from attention_ablation.base.model import one_line
from attention_ablation.report.numbers import Shown

# What LaTeX reads as more than itself; `[` and `*` only after the end of a line.
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "[": "{[}",
        "*": "{*}",
        "$": r"\$",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "&": r"\&",
        "%": r"\%",
        "_": r"\_",
        "#": r"\#",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        "±": r"$\pm$",
        "≠": r"$\neq$",
        "†": r"$^\dagger$",
        "‡": r"$^\ddagger$",
        "§": r"$^\S$",
        "¶": r"$^\P$",
    }
)


def to_latex(
    display: pd.DataFrame,
    headings: Sequence[tuple[str, str]],
    notes: Sequence[str],
    *,
    caption: str,
    label: str,
) -> str:
    """Return a `table` with booktabs' rules; `display` has a `Shown` in each cell.

    headings: of each column, those of neighbours that are equal are one; and what it is of.
    """
    body = display.map(cell)
    body.columns = pd.MultiIndex.from_tuples([(escape(heading), of) for heading, of in headings])
    text = body.style.hide(axis="index").to_latex(
        column_format="l" + "r" * (display.shape[1] - 1),
        hrules=True,
        multicol_align="c",
        caption=escape(caption),
        label=label,
        position_float="centering",
    )
    lines = "\\\\\n".join(escape(note) for note in notes)
    end = "\\end{table}"
    note_block = f"\\par\\smallskip\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{lines}\n"
    text = text.replace("\\centering\n", "\\centering\\small\\setlength{\\tabcolsep}{4pt}\n")
    return "% Needs \\usepackage{booktabs}.\n" + text.replace(
        end, f"{note_block}\\end{{minipage}}\n{end}"
    )


def cell(shown: Shown) -> str:
    """Return a cell of a table; the best is bold."""
    text = escape(shown.text)
    return (rf"\textbf{{{text}}}" if shown.best else text) + escape(shown.mark)


def escape(text: str) -> str:
    """Return LaTeX that sets `text` as it is, but for quotation marks, which LaTeX curls."""
    # Two hyphens would be a dash.
    return re.sub("-(?=-)", "-{}", one_line(text).translate(LATEX))
