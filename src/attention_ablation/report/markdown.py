"""Text as Markdown that shows it as it is."""

import re
from collections.abc import Iterable

from tabulate import tabulate

from attention_ablation.base.model import one_line
from attention_ablation.report.results import Results, number

# What CommonMark, GitHub or a reader of formulas takes for more than itself: anywhere; where it is
# not between letters; where it begins a tag, a link or an entity.
SPECIAL = re.compile(r"[\\`*~^$|\[]|(?<![^\W_])_|_(?![^\W_])|<(?=\S)|&(?=#?\w+;)")
# What begins a heading, a quotation or a list.
START = re.compile(r"^(\d+)(?=[.)]( |$))|^(?=[-+#>=])")


def to_markdown(results: Results, title: str, notes: Iterable[str]) -> str:
    """Return a table with its title above and its notes below."""
    headings = ["Architecture"]
    for name, metric in results.columns.items():
        headings += [metric.title, *["paper"] * (name in results.printed)]
    align = ["left"] + ["right"] * (len(headings) - 1)
    body = tabulate(
        results.texts(cell), headings, tablefmt="pipe", disable_numparse=True, colalign=align
    )
    return f"**Table {number(results.table)}. {escape(title)}**\n\n{body}\n\n{bullets(notes)}"


def cell(text: str, best: bool, mark: str) -> str:
    """Return a cell of a table; the best is bold."""
    return (f"**{escape(text)}**" if best else escape(text)) + escape(mark)


def escape(text: str) -> str:
    """Return Markdown that shows `text`, within a line or a cell of a table."""
    return SPECIAL.sub(r"\\\g<0>", one_line(text))


def bullets(notes: Iterable[str]) -> str:
    """Return a list, a line for each note."""
    return "".join("- " + START.sub(r"\1\\", escape(note.strip())) + "\n" for note in notes)
