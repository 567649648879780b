"""A table as LaTeX."""

from collections.abc import Sequence

import pandas as pd

BOLD = "<<{}>>"
# `<<` and `>>` stand for bold until everything else is escaped.
LATEX = {
    "\\": "\N{BACKSPACE}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "\N{BACKSPACE}": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "±": r"$\pm$",
    "≠": r"$\neq$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "¶": r"$^\P$",
    "<<": r"\textbf{",
    ">>": "}",
}


def to_latex(
    display: pd.DataFrame,
    headings: Sequence[tuple[str, str]],
    notes: Sequence[str],
    *,
    caption: str,
    label: str,
) -> str:
    """Return a `table` with booktabs' rules; `display` has its bold cells in BOLD.

    headings: of each column, those of neighbours that are equal are one; and what it is of.
    """
    display = display.map(_escape)
    display.columns = pd.MultiIndex.from_tuples(
        [(_escape(heading), of) for heading, of in headings]
    )
    body = display.style.hide(axis="index").to_latex(
        column_format="l" + "r" * (display.shape[1] - 1),
        hrules=True,
        multicol_align="c",
        caption=_escape(caption),
        label=label,
        position_float="centering",
    )
    lines = "\\\\\n".join(_escape(note) for note in notes)
    end = "\\end{table}"
    note_block = f"\\par\\smallskip\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{lines}\n"
    body = body.replace("\\centering\n", "\\centering\\small\\setlength{\\tabcolsep}{4pt}\n")
    return "% Needs \\usepackage{booktabs}.\n" + body.replace(
        end, f"{note_block}\\end{{minipage}}\n{end}"
    )


def _escape(text: str) -> str:
    for plain, tex in LATEX.items():
        text = text.replace(plain, tex)
    return text
