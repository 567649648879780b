"""The figure of a metric against the recipe, by hand; and a study without sections."""

import csv
import io
import re
from typing import Any

import pytest
import yaml
from scipy import stats

from attention_ablation.base.errors import UserError
from attention_ablation.figures.against_recipe import VariedFigure
from attention_ablation.report.collect import collect
from attention_ablation.report.html import write_report
from attention_ablation.report.tables import write_table
from attention_ablation.study.expand import Plan
from tests.controls import CLAIMS, STUDY, change_rows, claim, errors, load
from tests.test_study import edit

NAME = "error-against-length"


def varied(plan: Plan) -> VariedFigure:
    figure = plan.study.figures[NAME]
    assert isinstance(figure, VariedFigure)
    return figure


def points(plan: Plan) -> dict[tuple[str, str], dict[str, str]]:
    lines = csv.DictReader(io.StringIO(varied(plan).csv(plan)))
    return {(line["row"], line["epochs"]): line for line in lines}


def test_the_points_of_the_figure_by_hand(controls: Plan) -> None:
    errors(controls, "length:resnet18", [30, 33, 31])
    errors(controls, "length:resnet18@x4", [20, 22])  # the third is missing
    errors(controls, "length:resnet18@x8", [18.5])
    errors(controls, "length:resnet18@x2", [25, 25, 25])
    errors(controls, "length:resnet18+se", [40, 41])
    errors(controls, "length:resnet18+se", [99], status="diverged", validation_top1_error=None)
    found = points(controls)
    assert len(found) == 7 * 4  # every row at every length; 2 epochs of the tiny tier
    assert {epochs for _, epochs in found} == {"2", "4", "8", "16"}

    def point(row: str, epochs: str) -> list[str]:
        return [found[row, epochs][key] for key in ("mean", "ci_low", "ci_high", "n")]

    for epochs, values in (("2", [30, 33, 31]), ("8", [20, 22])):
        interval = stats.ttest_1samp(values, 0).confidence_interval()
        mean, low, high, n = map(float, point("resnet18", epochs))
        assert mean == pytest.approx(sum(values) / len(values), abs=1e-4)
        assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-4)
        assert n == len(values)
    assert point("resnet18", "16") == ["18.5", "", "", "1"]
    assert point("resnet18", "4") == ["25.0", "", "", "3"]  # no spread is no interval
    assert point("resnet18+se", "2") == ["41.0", "", "", "1"]
    assert point("resnet18+cbam", "2") == ["", "", "", "0"]
    varied(controls).write(controls, NAME)
    folder = controls.folder / "figures"
    assert (folder / f"{NAME}.csv").read_text() == varied(controls).csv(controls)
    drawn = (folder / f"{NAME}.svg").read_text()
    for text in (
        "Error against length of training",
        "from the identity",
        "ResNet18 + SE",
        "epochs",
    ):
        assert f">{text}<" in drawn
    assert "mean and 95 % interval of 3 seeds" in drawn
    assert "section" not in drawn
    inputs = varied(controls).inputs(controls)
    assert len(inputs) == 7 * 4 * 3
    assert all(path.endswith("/metrics.json") for path in inputs)


def test_the_figure_is_drawn_of_one_seed_and_of_no_run(controls: Plan) -> None:
    plan = load(1)
    varied(plan).write(plan, NAME)
    assert {line["n"] for line in points(plan).values()} == {"0"}
    errors(plan, "length:resnet18", [30])
    varied(plan).write(plan, NAME)
    assert ", one seed<" in (plan.folder / f"figures/{NAME}.svg").read_text()


def test_a_network_that_is_multiplied_only_has_its_first_label(controls: Plan) -> None:
    change_rows("length,ResNet18 + SE,resnet18,se,\n", "")
    edit(CLAIMS, "claims", value={"mine": claim("length", ["resnet18+se@x8", "resnet18@x8"])})
    plan = load()
    varied(plan).write(plan, NAME)
    drawn = (plan.folder / f"figures/{NAME}.svg").read_text()
    assert re.search(">ResNet18 [+] SE, 2 . as long<", drawn)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("table", "gain", "expected a table that varies a key, got gain"),
        ("table", "lenght", "unknown table 'lenght'; did you mean 'length'"),
        ("metric", "top1_eror", "unknown metric 'top1_eror'; did you mean 'top1_error'"),
        ("metric", "params_m", "unknown metric 'params_m'"),
        ("panels", [], "figures.error-against-length.panels: .* at least 1 item"),
        (
            "panels",
            [{"title": "a", "rows": ["resnet18+see"]}],
            r"length: unknown row 'resnet18\+see'",
        ),
        ("panels", [{"title": "a", "rows": ["resnet18+se@x2"]}], r"unknown row 'resnet18\+se@x2'"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused(
    controls: Plan, key: str, value: Any, message: str
) -> None:
    edit(STUDY, "figures", NAME, key, value=value)
    with pytest.raises(UserError, match=message):
        load()


def test_without_sections_nothing_says_section(controls: Plan) -> None:
    study = yaml.safe_load(STUDY.read_text())
    assert not any("section" in entry for entry in study["tables"].values())
    errors(controls, "gain:resnet18", [20, 21, 23])
    runs = collect(controls)
    for table in controls.tables:
        write_table(controls, table, runs)
    varied(controls).write(controls, NAME)
    write_report(controls, runs)
    written = [path for end in ("md", "tex", "svg") for path in controls.folder.rglob(f"*.{end}")]
    assert len(written) == 2 * 3 + 1
    assert not [path for path in written if "section" in path.read_text()]
    page = (controls.folder / "report.html").read_text()
    for title in (
        "Gates beside constant factors, and from the identity",
        "Error against length of",
    ):
        assert title in page
    assert "section " not in page.split("<body")[1].replace("<section ", "")
