"""Tables and curves from run folders whose numbers are known."""

import csv
import itertools
import math
import xml.etree.ElementTree as ET
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attention_ablation.cli.main import main
from attention_ablation.evidence.statistics import contest
from attention_ablation.figures.error_curves import CurvesFigure
from attention_ablation.report.collect import collect
from attention_ablation.report.latex import escape
from attention_ablation.report.notes import table_notes
from attention_ablation.report.results import rounds_into, table_results, written
from attention_ablation.report.tables import write_table
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from tests.run_folders import ROWS, write_metrics

COLUMNS = (
    "row,label,backbone,attention,seeds,params_m,params_m_paper,gflops,gflops_paper,"
    "top1_error,top1_error_sd,top1_error_paper,top5_error,top5_error_sd,top5_error_paper"
)


def resolved_best(values: dict[str, list[float]]) -> str | None:
    found = contest(values)
    return found.first if found and found.resolved else None


def markdown(plan: Plan) -> str:
    write_table(plan, "table3", collect(plan))
    return (plan.folder / "tables/table3.md").read_text()


def test_means_spreads_and_the_papers_values(tiny: Plan) -> None:
    write_metrics(tiny, "resnet50+se", [20, 23, 26])
    write_table(tiny, "table3", collect(tiny))
    with (tiny.folder / "tables/table3.csv").open() as file:
        header, *lines = csv.reader(file)
    assert ",".join(header) == COLUMNS
    assert [line[0] for line in lines] == ROWS
    se = dict(zip(header, lines[0], strict=True))
    assert (se["seeds"], se["top1_error"], se["top1_error_sd"]) == ("3", "23.0", "3.0")
    assert (se["top1_error_paper"], se["top5_error_paper"]) == ("23.14", "6.70")
    assert (se["params_m_paper"], se["gflops_paper"]) == ("", "")


def test_missing_and_failed_runs_are_dashes_and_named(tiny: Plan) -> None:
    text = markdown(tiny)
    body = [line for line in text.splitlines() if line.startswith("| ResNet50")]
    assert [line.split("|")[2].strip() for line in body] == ["-"] * 4
    write_metrics(tiny, "resnet50+cbam", [20, 23])  # the third seed is missing
    folder = tiny.runs_folder / tiny.row_runs("table3", "resnet50+se")[0].path
    folder.mkdir(parents=True)
    (folder / "failure.json").write_text('{"status": "failed", "reason": "out of memory"}')
    text = markdown(tiny)
    assert "| ResNet50 + channel + spatial " in text
    assert "21.5 ± 2.1" in text
    assert "ResNet50 + channel (SE) n = 0 (failed: out of memory; missing)" in text
    assert "ResNet50 + channel + spatial n = 2" in text
    runs = collect(tiny)
    assert runs["status"].value_counts().to_dict() == {"missing": 9, "completed": 2, "failed": 1}
    assert "out of memory" in set(runs["reason"])


def test_what_the_data_lack_is_said_once_below_the_table(tiny: Plan) -> None:
    remark = "validation images: 4,000, where the data set has 4,952"
    write_metrics(tiny, "resnet50+se", [20, 23, 26], dataset_remarks=remark)
    assert markdown(tiny).count(f"- Data: {remark}.") == 1


def test_a_diverged_run_says_so_and_hides_no_mean(tiny: Plan) -> None:
    write_metrics(tiny, "resnet50+cbam", [20, 23, 21])
    write_metrics(tiny, "resnet50+cbam", [99], status="diverged", validation_top1_error=None)
    (cbam,) = (
        line
        for line in table_results(tiny, "table3", collect(tiny), {}).rows
        if line.row.key == "resnet50+cbam"
    )
    assert (cbam.cells["top1_error"].text, cbam.cells["top1_error"].value) == ("diverged 1/3", None)
    assert cbam.n == 2
    assert "diverged 1/3" in markdown(tiny)


@pytest.mark.parametrize("second_is_better_by", [0.5, 8])
def test_bold_only_where_the_winner_is_resolved(tiny: Plan, second_is_better_by: float) -> None:
    write_metrics(tiny, ROWS[0], [30, 34, 31])
    write_metrics(tiny, ROWS[1], [29.5 - second_is_better_by + e for e in (0, 3, 2)])
    write_metrics(tiny, ROWS[2], [40, 41, 42])
    write_metrics(tiny, ROWS[3], [50, 51, 55])
    line = next(
        li
        for li in markdown(tiny).splitlines()
        if "+ channel + spatial |" in li or "+ spatial  " in li
    )
    ours, paper = (cell.strip() for cell in line.split("|")[2:4])
    assert ours.startswith("**") == (second_is_better_by == 8)
    assert paper == "**22.66**"  # the paper's own best


def test_one_seed_resolves_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table3"]))
    for key, error in zip(ROWS, (10, 20, 30, 40), strict=True):
        write_metrics(plan, key, [error])
    text = markdown(plan)
    assert "one seed resolves nothing" in text
    assert text.count("**") == 2 * (1 + 2)  # the title, and the paper's best in two columns


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_winner_is_resolved_at_the_stated_confidence() -> None:
    # Two equal rows: whichever has the lower mean is called the winner in 5 % of all cases.
    generator = np.random.default_rng(0)
    found = sum(
        resolved_best(
            {"a": generator.normal(size=5).tolist(), "b": generator.normal(size=5).tolist()}
        )
        is not None
        for _ in range(2000)
    )
    low, high = stats.binom.interval(0.999, 2000, 0.05)
    assert low <= found <= high


def test_the_winner_follows_the_t_interval_by_hand() -> None:
    # Differences -1, -2, -3: mean -2, standard error 1/sqrt(3), t(0.975, 2) = 4.303.
    assert 4.303 / math.sqrt(3) > 2
    assert resolved_best({"a": [1.0, 1.0, 1.0], "b": [2.0, 3.0, 4.0]}) is None
    # Differences -3, -4, -5: 2.484 < 4.
    assert resolved_best({"a": [1.0, 1.0, 1.0], "b": [4.0, 5.0, 6.0]}) == "a"
    assert resolved_best({"a": [1.0, 1.0], "b": [2.0, 2.0]}) is None  # no spread to judge by
    # Constant differences of 0.2 whose floating-point spread is not quite 0.
    assert resolved_best({"a": [0.4, 0.6], "b": [0.6, 0.8]}) is None
    assert resolved_best({"a": [1.0], "b": [2.0]}) is None
    assert resolved_best({"a": [1.0, 2.0]}) is None


def test_printed_values_are_held_to_prediction_intervals(faithful: Plan) -> None:
    write_metrics(faithful, "resnet50+se", [23.0, 23.1, 23.2])  # 23.14 is inside
    write_metrics(faithful, "resnet50+cbam", [23.0, 23.1])  # t(0.975, 1): 22.66 is inside
    write_metrics(faithful, "resnet50+spatial+channel", [22.0, 22.1, 22.2])  # 22.78 is outside
    write_metrics(faithful, "resnet50+parallel", [22.95])
    write_table(faithful, "table3", collect(faithful))
    frame = pd.read_csv(faithful.folder / "tables/table3.csv", index_col="row")
    column = frame["top1_error_paper_in_interval"]
    assert column[column.notna()].to_dict() == {
        "resnet50+se": True, "resnet50+cbam": True, "resnet50+spatial+channel": False,
    }  # fmt: skip
    text = (faithful.folder / "tables/table3.md").read_text()
    assert " 22.78 ∉ |" in text
    # 22.1 and 4.3027 x 0.1 x sqrt(4/3) = 0.497. Of top-5 errors, a quarter of these, 1 is near.
    assert "ResNet50 + spatial + channel, Top-1 error: 22.78 against 21.60 to 22.60" in text
    outside = text.count(" ∉ |")
    assert f"{6 - outside} of 6 lie in our 95 % prediction interval for one further run." in text
    assert r"22.78 $\notin$" in (faithful.folder / "tables/table3.tex").read_text()


def test_other_tiers_hold_nothing_to_the_papers_values(tiny: Plan) -> None:
    write_metrics(tiny, "resnet50+se", [50, 51, 52])
    text = markdown(tiny)
    assert "prediction" not in text
    assert "∉" not in text
    assert "in_interval" not in (tiny.folder / "tables/table3.csv").read_text()


def test_one_seed_reproduces_nothing(faithful: Plan) -> None:
    plan = load_plan(faithful.config.model_copy(update={"seeds": [0]}))
    write_metrics(plan, "resnet50+se", [50])
    text = markdown(plan)
    assert "Two seeds or more would say whether our runs reproduce the paper's numbers." in text
    assert "∉" not in text


def test_a_printed_value_stands_for_all_that_rounds_to_it() -> None:
    for interval in ((24.564, 25.0), (24.0, 24.556), (24.0, 25.0), (24.559, 24.561)):
        assert rounds_into(interval, "24.56")
    for interval in ((24.566, 25.0), (24.0, 24.554)):
        assert not rounds_into(interval, "24.56")
    assert rounds_into((24.9, 25.2), "24.5") is False
    assert rounds_into((24.51, 25.2), "24.5")
    assert rounds_into((24.6, 25.2), "25")


def test_a_start_that_the_tier_sets_is_said_below_the_table(tiny: Plan) -> None:
    note = "This tier starts gates as the identity, with twice the sigmoid"
    assert markdown(tiny).count(note) == 1
    # There each gate says its own start.
    controls = load_plan({"study": "controls", "tier": "tiny"})
    assert {spec.attention.start for spec in controls.specs.values()} == {None, "identity"}
    runs = collect(controls)
    for table in controls.tables:
        assert note not in " ".join(
            table_notes(controls, table_results(controls, table, runs, {}), runs)
        )


def test_latex_escapes_what_latex_reads_as_commands(tiny: Plan) -> None:
    write_metrics(tiny, "resnet50+parallel", [20.0, 21.0, 22.0])
    write_table(tiny, "table3", collect(tiny))
    text = (tiny.folder / "tables/table3.tex").read_text()
    assert r"channel \& spatial in parallel & 21.0 $\pm$ 1.0 & 22.95" in text
    assert r"\textbf{22.66}" in text
    assert r"\multicolumn{2}{c}{Top-1 error (\%)}" in text
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert not [line for line in text.splitlines() if "±" in line or "†" in line or "<<" in line]


def test_complexity_and_discrepancies_are_in_the_table(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table1"]))
    plan.folder.mkdir(parents=True)
    (plan.folder / "complexity.csv").write_text(
        "table,row,params,gflops,verdict\n"
        "table1,resnet50+channel,28088024,3.863003,bam-columns\n"
        "table1,resnet50,25557032,3.857973,MISMATCH\n"
    )
    write_table(plan, "table1", collect(plan))
    text = (plan.folder / "tables/table1.md").read_text()
    line = next(line for line in text.splitlines() if "AvgPool & MaxPool" in line)
    cells = [cell.strip() for cell in line.split("|")[2:6]]
    assert cells == ["28.09", "25.92†", "3.863", "4.02†"]
    assert "| ResNet50 (baseline) ≠ " in text
    assert "≠ printed Params or GFLOPs that the network does not have." in text
    assert "† bam-columns: 25.92 M and 3.94 G are ResNet50 with BAM" in text


def test_runs_csv_has_every_spec_key_and_who_shows_it(tiny: Plan) -> None:
    write_metrics(tiny, "resnet50+cbam", [20, 23, 21])
    assert main(["render", "runs", "--set", "seeds=[0, 1, 2]"]) == 0
    frame = pd.read_csv(tiny.folder / "runs.csv", index_col="run")
    assert len(frame) == 12
    run = tiny.row_runs("table3", "resnet50+cbam")[1]
    line = frame.loc[run.path]
    assert line["rows"] == "table3:resnet50+cbam"
    assert (line["seed"], line["validation_top1_error"], line["status"]) == (1, 23, "completed")
    for name in ("backbone.name", "backbone.width", "attention.kernel", "recipe.learning_rate",
                 "recipe.dataset.fragments", "recipe.schedule.name"):  # fmt: skip
        assert name in frame.columns


def test_rendering_an_unknown_table_is_a_mistake(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "tabel3"]) == 2
    assert "unknown table or figure 'tabel3'; did you mean 'table3'?" in capsys.readouterr().err


def test_what_cannot_be_written_stops_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    names = ["claims.md", "figures/figure5.csv", "figures/figure4.svg", "tables/table2.csv"]
    folder = project / "results/tiny/cbam"
    for name in names:
        (folder / name / "taken").mkdir(parents=True)  # a folder where the file should be
    assert main(["render", "--set", "tables=[table1, table2, table4, table5]"]) == 2
    error = capsys.readouterr().err
    for name in names:
        assert f"{name}: it cannot be written: Is a directory" in error
    assert "figures/figure4.svg: expected a regular file, got a folder" in error  # for the page
    written = ["runs.csv", "tables/table1.tex", "tables/table4.md", "figures/figure4-reference.png"]
    assert [name for name in written if not (folder / name).is_file()] == []


def test_the_curves_show_three_networks_in_two_splits(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", seeds=[0, 1]))
    figure = plan.study.figures["figure4"]
    assert isinstance(figure, CurvesFigure)
    panel = figure.panels[0]
    runs = [run for key in panel.rows for run in plan.row_runs(panel.table, key)]
    for run, level in zip(runs, itertools.count(10, 10), strict=False):
        folder = plan.runs_folder / run.path
        folder.mkdir(parents=True)
        lines = [f"{epoch},{level + epoch},{level - epoch}" for epoch in (1, 2, 3)]
        header = "epoch,train_top1_error,validation_top1_error"
        (folder / "history.csv").write_text("\n".join([header, *lines]))
    # A training that has only just started has an empty history.
    (plan.runs_folder / runs[0].path / "history.csv").write_text("")
    assert main(["render", "figure4", "--set", "tables=all", "--set", "seeds=[0, 1]"]) == 0
    svg = (plan.folder / "figures/figure4.svg").read_text()
    assert ET.fromstring(svg).tag.endswith("svg")
    for label in (
        "ResNet50 + CBAM, validation",
        "ResNet50, train (n = 1)",
        "MobileNet + SE: no run",
    ):
        assert f">{label}<" in svg
    assert (plan.folder / "figures/figure4.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["render", "figure4", "--set", "tables=all", "--set", "seeds=[0, 1]"]) == 0
    assert (plan.folder / "figures/figure4.svg").read_text() == svg  # the same, byte for byte


def test_a_number_has_a_true_minus_and_no_negative_zero() -> None:
    assert written(-0.001, ".2f") == "0.00"
    assert written(-0.001, ".2f", "+") == "+0.00"
    assert written(Decimal("-1.25"), ".3g") == "\N{MINUS SIGN}1.25"
    assert escape(written(-0.5, ".1f")) == "$-$0.5"  # of which pdfLaTeX knows no letter
