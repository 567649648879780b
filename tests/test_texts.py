"""Texts of a study in every format: what is accepted is shown as it was typed."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pydantic import TypeAdapter

from attention_ablation.base.errors import UserError
from attention_ablation.base.model import Line
from attention_ablation.figures.error_curves import CurvesFigure
from attention_ablation.figures.parts.drawing import save
from attention_ablation.report import latex, markdown
from attention_ablation.report.claims import rendered_claims
from attention_ablation.report.collect import collect
from attention_ablation.report.html import write_report
from attention_ablation.report.tables import rendered
from attention_ablation.runs.folder import read_outcome
from attention_ablation.study.expand import Plan
from tests.conftest import plan_from, write_yaml
from tests.run_folders import CBAM, ROWS

STUDY = Path("workflow/studies/cbam")
NASTY = [
    "$x_1", r"$\frac$", "costs $1 and $2", "<<bold>>", "**bold**", "__bold__ _it_ a_b", "`code`",
    "<b>&amp;</b>", "<!-- -->", "| a | b", "\\", r"\|", r"\end{table}", "100 % #1 & {~^}", "[x](y)",
    "[1] first", "* star", "- minus", "--flag", "# one", "1. one", "1) one", "> quoted", "_hidden",
    "~~~", "===", "+ CBAM", "</script>", "'\"", "a > b < c", "ß ± ≠ †", "日本語", "{{ x }}", "=1+1",
]  # fmt: skip
LINE: TypeAdapter[str] = TypeAdapter(Line)


MARKUP = st.text("\\`*_{}[]<>()#+-.!|~^$&%=:;'\" ax1", max_size=25)
PRINTABLE = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=25
)
TEXTS = (st.sampled_from(NASTY) | MARKUP | PRINTABLE).filter(str.strip).map(LINE.validate_python)


def change(file: str, *keys: Any, to: Any) -> None:
    """Change a key of a YAML file of the project in the working folder."""
    data = part = yaml.safe_load(Path(file).read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = to
    write_yaml(Path(file), data)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("", "rows.csv line 12: label: expected a text, got an empty one; write it"),
        ("  ", "expected a text, got an empty one"),
        ("a\0b", r"line 12: label: expected one line of printable .*, got the character '\\x00'"),
        ("a\ab", r"got the character '\\x07'; take it out"),
        ("a\u200bb", r"got the character '\\u200b'; take it out"),
        ('"ResNet50\nCBAM"', "rows.csv line 13: label: expected one line .*, got a line break"),
        ('"ResNet50\u2028CBAM"', r"line 12: label: .*, got the character '\\u2028'"),
    ],
)
def test_a_label_that_not_every_format_can_show_is_refused(
    tiny: Plan, label: str, message: str
) -> None:
    rows = STUDY / "rows.csv"
    text = rows.read_text()
    rows.write_text(text.replace("table3,ResNet50 + channel (SE)", f"table3,{label}"), "utf-8")
    with pytest.raises(UserError, match=message):
        plan_from(Path("config.yaml"))


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        (STUDY / "study.yaml", ["title"]),
        (STUDY / "study.yaml", ["citation"]),
        (STUDY / "study.yaml", ["tables", "table1", "title"]),
        (STUDY / "study.yaml", ["tables", "table1", "section"]),
        (STUDY / "study.yaml", ["figures", "figure4", "title"]),
        (STUDY / "study.yaml", ["figures", "figure4", "panels", 0, "title"]),
        (STUDY / "study.yaml", ["figures", "figure4-reference", "panels", 0, "title"]),
        (STUDY / "study.yaml", ["discrepancies", "bam-columns", "explanation"]),
        (STUDY / "study.yaml", ["references", "pytorch-insight", "protocol"]),
        (STUDY / "study.yaml", ["references", "pytorch-insight", "curves", "resnet50", "label"]),
        (STUDY / "claims.yaml", ["claims", "T1a", "says"]),
        (STUDY / "claims.yaml", ["claims", "T1a", "place"]),
        (STUDY / "claims.yaml", ["claims", "T4c", "comparisons", 0, "reason"]),
        (Path("workflow/tiers/tiny.yaml"), ["title"]),
        (Path("workflow/tiers/tiny.yaml"), ["limits"]),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("text", ["", "\a"])
def test_every_text_of_a_study_and_a_tier_is_checked(
    tiny: Plan, file: Path, keys: list[str | int], text: str
) -> None:
    change(str(file), *keys, to=text)
    place = rf"{file.name}: {'.'.join(map(str, keys))}: expected"
    with pytest.raises(UserError, match=place):
        plan_from(Path("config.yaml"))


def test_the_name_of_a_claim_is_a_text_too(tiny: Plan) -> None:
    claims = yaml.safe_load((STUDY / "claims.yaml").read_text())["claims"]
    change(str(STUDY / "claims.yaml"), "claims", to={**claims, "T\a": claims["T1a"]})
    with pytest.raises(UserError, match=r"claims.yaml: claims.*: expected one line"):
        plan_from(Path("config.yaml"))


def test_folded_sentences_are_one_line(tiny: Plan) -> None:
    change("workflow/tiers/tiny.yaml", "limits", to="It says\n  this\n\nand that.\n")
    assert plan_from(Path("config.yaml")).tier.limits == "It says this and that."


def test_the_reason_of_a_failure_is_one_printable_line(tiny: Plan) -> None:
    folder = tiny.runs_folder / tiny.row_runs("table3", CBAM)[0].path
    folder.mkdir(parents=True)
    failure = {"status": "failed", "reason": "\x1b[31mout of\nmemory\0, $5"}
    (folder / "failure.json").write_text(json.dumps(failure))
    assert read_outcome(folder).reason == "[31mout of memory, $5"
    assert (
        r"failed: \[31mout of memory, \$5; missing" in rendered(tiny, "table3", collect(tiny))["md"]
    )


ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


def with_nasty(test: Any) -> Any:
    """Try every one of NASTY, besides what hypothesis thinks of."""
    for text in NASTY:
        test = example(text)(test)
    return given(TEXTS)(test)


@with_nasty
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    found = markdown.escape(text)
    assert ESCAPED.sub(r"\1", found) == text
    # Besides what is escaped nothing is left that could be markup.
    bare = ESCAPED.sub(".", found)
    assert not set("\\`*~^$|[") & set(bare)
    assert not re.search(r"<\S|&#?\w+;", bare)
    assert not re.search(r"(^|[\W_])_|_([\W_]|$)", bare)
    line = markdown.bullets([text])
    assert (line[:2], line[-1]) == ("- ", "\n")
    assert ESCAPED.sub(r"\1", line[2:-1]) == text.strip()
    assert not re.match(r"[-+#>=]|\d+[.)](\s|$)", line[2:])


COMMANDS = {
    r"\textbackslash": "\\", r"\textasciicircum": "^", r"\textasciitilde": "~", r"\textless": "<",
    r"\textgreater": ">", r"\textbar": "|", r"\textasciigrave": "`", r"\pm": "±", r"\neq": "≠",
    r"\dagger": "†", r"\ddagger": "‡", r"\S": "§", r"\P": "¶",
}  # fmt: skip


def read_latex(source: str) -> str:
    """Return what LaTeX sets, of text with the commands above."""
    assert not re.search(r"--|[<>|`\[*](?!})", source)  # dashes, quotation marks, options
    text, depth, formula = "", 0, False
    for token in re.findall(r"\\[A-Za-z]+|\\.|.", source):
        assert token not in tuple("&#%_~")
        if token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0
        elif token == "$":
            formula = not formula
        elif token == "^":
            assert formula
        else:
            text += COMMANDS.get(token, token.removeprefix("\\"))
    assert (depth, formula) == (0, False)
    return text


@with_nasty
def test_latex_sets_a_text_as_it_is(text: str) -> None:
    assert read_latex(latex.escape(text)) == text
    assert latex.escape("21.0 ± 1.0") == r"21.0 $\pm$ 1.0"


def test_the_best_cell_is_bold_whatever_its_text_is() -> None:
    shown = ("<<5>> **6**", True, "†")
    assert markdown.cell(*shown) == r"**\<\<5>> \*\*6\*\***†"
    assert latex.cell(*shown).startswith(r"\textbf{\textless{}\textless{}5")
    assert latex.cell(*shown).endswith(r"6{*}{*}}$^\dagger$")


@pytest.fixture
def drawn(done: Plan) -> Plan:
    """Table 3 with all runs finished, their histories long enough for curves."""
    for run in done.runs:
        lines = ["epoch,train_top1_error,validation_top1_error", "1,40,50", "2,30,20", ""]
        (done.runs_folder / run / "history.csv").write_text("\n".join(lines))
    return done


class Headings(HTMLParser):
    """The texts of a page's rows' headings and of its title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag in ("th", "h1")
        if self.inside:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


def worded(plan: Plan, texts: list[str]) -> Plan:
    """Return the plan with these texts: its title, a table's, a figure's, and the rows' labels."""
    title, heading, name, *labels = texts
    rows = [row.model_copy(update={"label": text}) for row, text in
            zip(plan.study.table_rows("table3"), labels, strict=True)]  # fmt: skip
    table = plan.study.tables["table3"].model_copy(update={"title": heading})
    panel = {"title": name, "table": "table3", "rows": ROWS}
    figure = {"kind": "error-curves", "title": name, "section": "1", "panels": [panel]}
    figures = {"figure4": CurvesFigure.model_validate(figure)}
    claim = plan.study.claims["T3a"].model_copy(update={"says": heading, "place": name})
    study = plan.study.model_copy(
        update={"title": title, "rows": rows, "figures": figures, "claims": {"T3a": claim},
                "tables": {"table3": table}, "references": {}, "discrepancies": {}}
    )  # fmt: skip
    return dataclasses.replace(plan, study=study)


BOXES = pytest.mark.filterwarnings("ignore:Glyph")  # drawn where the font has no character


@BOXES
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=20, max_size=20))
@example(NASTY)
def test_a_figure_shows_texts_as_they_are(tiny: Plan, texts: list[str]) -> None:
    figure = Figure()
    for number, text in enumerate(texts):
        figure.text(0.1, number / len(texts), text)
    figure.suptitle("two\nlines\0")  # such as the name of a class in somebody's data
    save(tiny, "texts", figure)
    assert svg_texts(tiny, "texts") == [*texts, "two", "lines"]


def svg_texts(plan: Plan, name: str) -> list[str]:
    """Return the lines of a figure."""
    parts = ET.parse(plan.folder / f"figures/{name}.svg").iter("{http://www.w3.org/2000/svg}text")
    return ["".join(part.itertext()) for part in parts]


@BOXES
@pytest.mark.filterwarnings("ignore:constrained_layout")  # of very wide characters
@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=7, max_size=7))
@example(NASTY[:7])
@example(["_hidden", *NASTY[9:14], "_hidden"])
def test_what_is_accepted_is_shown_in_every_format(drawn: Plan, texts: list[str]) -> None:
    plan = worded(drawn, texts)
    title, heading, name, *labels = texts
    runs = collect(plan)
    files = rendered(plan, "table3", runs)
    lines = [line for line in files["md"].splitlines() if line.startswith("| ")]
    cells = [ESCAPED.sub("", line).split("|") for line in lines]
    assert [len(line) for line in cells] == [7] * 5
    first = [re.split(r" +\| ", line)[0].removeprefix("| ") for line in lines[1:]]
    assert [ESCAPED.sub(r"\1", cell) for cell in first] == [label.strip() for label in labels]
    body = files["tex"].partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    assert [line.count(" & ") for line in body] == [4] * 4
    assert [read_latex(line.split(" & ")[0]) for line in body] == labels
    assert markdown.escape(heading) in rendered_claims(plan, runs)["claims.md"]
    plan.study.figures["figure4"].write(plan, "figure4")
    shown = svg_texts(plan, "figure4")
    assert {f"{label}, validation" for label in labels} <= set(shown)
    assert f"Figure 4. {name} (section 1)" in shown
    assert (plan.folder / "figures/figure4.png").stat().st_size > 10_000
    write_report(plan, runs)
    found = Headings((plan.folder / "report.html").read_text("utf-8")).texts
    assert {title, *labels} <= set(found)


def test_long_labels_leave_room_for_the_curves(drawn: Plan) -> None:
    labels = [f"ResNet50 + channel & spatial in parallel, number {n}" for n in range(4)]
    plan = worded(drawn, ["a", "b", "c", *labels])
    plan.study.figures["figure4"].write(
        plan, "figure4"
    )  # matplotlib would warn, and leave the legend out
    assert f"{labels[3]}, validation" in svg_texts(plan, "figure4")
