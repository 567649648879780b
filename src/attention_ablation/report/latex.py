"""A table as LaTeX."""

import re
from collections.abc import Iterable

from attention_ablation.base.model import one_line
from attention_ablation.report.results import MINUS, Results, number

# What LaTeX reads as more than itself; `[` and `*` only after the end of a line.
LATEX = str.maketrans(
    {mark: "\\" + mark for mark in "{}$&%_#"}
    | {mark: f"{{{mark}}}" for mark in "[*"}
    | {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        "±": r"$\pm$",
        MINUS: "$-$",
        "≠": r"$\neq$",
        "∉": r"$\notin$",
        "†": r"$^\dagger$",
        "‡": r"$^\ddagger$",
        "§": r"$^\S$",
        "¶": r"$^\P$",
    }
)


def to_latex(results: Results, title: str, notes: Iterable[str], *, label: str) -> str:
    """Return a `table` with booktabs' rules, its notes below."""
    table = number(results.table)
    place = " of the paper" * (bool(results.printed) and table != results.table)
    above, below = ["Architecture"], [""]
    for name, metric in results.columns.items():
        heading, pair = escape(metric.title), name in results.printed
        above.append(rf"\multicolumn{{2}}{{c}}{{{heading}}}" if pair else heading)
        below += ["ours", *["paper"] * pair]
    heads = [above, *[below] * bool(results.printed)]
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{Table {escape(table)}{place}: {escape(title)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(below) - 1)}}}",
        r"\toprule",
        *(" & ".join(row) + r" \\" for row in heads),
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in results.texts(cell)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize",
        "\\\\\n".join(escape(note) for note in notes),
        r"\end{minipage}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def cell(text: str, best: bool, mark: str) -> str:
    """Return a cell of a table; the best is bold."""
    return (rf"\textbf{{{escape(text)}}}" if best else escape(text)) + escape(mark)


def escape(text: str) -> str:
    """Return LaTeX that sets `text` as it is, but for quotation marks, which LaTeX curls."""
    # Two hyphens would be a dash.
    return re.sub("-(?=-)", "-{}", one_line(text).translate(LATEX))
