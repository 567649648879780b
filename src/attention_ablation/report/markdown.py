"""Text as Markdown that shows it as it is."""

import re
from collections.abc import Iterable

from attention_ablation.base.model import one_line
from attention_ablation.report.numbers import Shown

# What CommonMark, GitHub or a reader of formulas takes for more than itself: anywhere; where it is
# not between letters; where it begins a tag, a link or an entity.
SPECIAL = re.compile(r"[\\`*~^$|\[]|(?<![^\W_])_|_(?![^\W_])|<(?=\S)|&(?=#?\w+;)")
# What begins a heading, a quotation or a list.
START = re.compile(r"^(\d+)(?=[.)]( |$))|^(?=[-+#>=])")


def escape(text: str) -> str:
    """Return Markdown that shows `text`, within a line or a cell of a table."""
    return SPECIAL.sub(r"\\\g<0>", one_line(text))


def cell(shown: Shown) -> str:
    """Return a cell of a table; the best is bold."""
    text = escape(shown.text)
    return (f"**{text}**" if shown.best else text) + escape(shown.mark)


def bullets(notes: Iterable[str]) -> str:
    """Return a list, a line for each note."""
    return "".join("- " + START.sub(r"\1\\", escape(note.strip())) + "\n" for note in notes)
