"""The figure of a metric against size: what is drawn, where labels are, and what is left out."""

import csv
import io
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from scipy import stats

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import write_text
from attention_ablation.evidence.complexity import NOT_PRINTED, Counted, complexity_csv, read_counts
from attention_ablation.figures.complexity import ComplexityFigure
from attention_ablation.figures.parts.labels import Box, Point, first_free, label_points
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.files import load_study
from tests.conftest import ROOT
from tests.own_images import remove
from tests.run_folders import finished
from tests.test_study import edit

STUDY = Path("workflow/studies/cbam/study.yaml")


def planned(study: str = "cbam", seeds: int = 3, **keys: Any) -> Plan:
    """Plan a study at the tiny tier, in the project as the working folder, its networks counted."""
    plan = load_plan(Config(study=study, tier="tiny", seeds=list(range(seeds)), **keys))
    write_text(plan.folder / "complexity.csv", counted(study))
    return plan


def counted(study: str) -> str:
    """Return the committed counts of a study; of one without, such as would crowd its points."""
    committed = ROOT / f"docs/results/quick/{study}/complexity.csv"
    if committed.is_file():
        return committed.read_text()
    rng = np.random.default_rng(1)
    return complexity_csv(
        Counted(
            *(row.table, row.key, row.label, row.backbone, row.attention),
            params=int(rng.choice([25_557_032, 26_312_232, 28_088_024, 28_089_624])),
            params_m_paper="",
            gflops=Decimal(str(rng.choice([3.857973, 3.860488, 3.864362, 4.004182]))),
            gflops_paper="",
            verdict=NOT_PRINTED,
        )
        for row in load_study(ROOT / "workflow/studies", study, "a test").rows
    )


def of(plan: Plan, name: str) -> ComplexityFigure:
    figure = plan.study.figures[name]
    assert isinstance(figure, ComplexityFigure)
    return figure


def finish_all(plan: Plan, figure: ComplexityFigure, around: float = 25, spread: float = 1) -> None:
    """Finish the runs of all rows, with errors of whole images around a value."""
    rng = np.random.default_rng(0)
    for table in figure.tables:
        for row in plan.rows(table):
            mean = around + 4 * rng.standard_normal()
            for run in plan.row_runs(table, row.key):
                finished(plan, run, round(mean + spread * rng.standard_normal(), 1))


def lines(plan: Plan, name: str = "size") -> dict[str, dict[str, str]]:
    return {line["row"]: line for line in csv.DictReader(io.StringIO(of(plan, name).csv(plan)))}


def markers(ax: Axes) -> list[tuple[float, float]]:
    places = np.concatenate([np.asarray(line.get_xydata()) for line in ax.get_lines()])
    return [(float(x), float(y)) for x, y in places]


def boxes(drawing: Figure, ax: Axes) -> dict[Annotation, Bbox]:
    """Return each label's box, px; without the line to its point."""
    renderer = FigureCanvasAgg(drawing).get_renderer()
    drawing.draw(renderer)
    labels = [child for child in ax.get_children() if isinstance(child, Annotation)]
    return {label: super(Annotation, label).get_window_extent(renderer) for label in labels}


def overlapping(first: Bbox, second: Bbox) -> bool:
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return bool(width > 0 and height > 0)


def test_what_is_drawn_is_what_was_counted_and_the_means(tiny: Plan) -> None:
    plan = planned()
    figure = of(plan, "size")
    finish_all(plan, figure)
    few = plan.row_runs("table4", "resnet18")
    for run, error in zip(few, (20.0, 22.0, 21.0), strict=True):
        finished(plan, run, error)
    found = lines(plan)
    assert list(found) == [row.key for table in ("table4", "table5") for row in plan.rows(table)]
    counts = read_counts(plan)
    for line in found.values():
        count = counts[line["table"], line["row"]]
        assert float(line["gflops"]) == pytest.approx(float(count.gflops or 0), abs=1e-6)
        assert float(line["params_m"]) == count.params / 1e6
        assert line["n"] == "3"
    interval = stats.ttest_1samp([20, 22, 21], 0).confidence_interval()
    assert float(found["resnet18"]["mean"]) == 21
    ends = [float(found["resnet18"][key]) for key in ("ci_low", "ci_high")]
    assert ends == pytest.approx([interval.low, interval.high], abs=1e-5)
    drawing = figure.draw(plan, "size")
    for ax, size in zip(drawing.axes, ("gflops", "params_m"), strict=True):
        assert markers(ax) == [(float(f[size]), float(f["mean"])) for f in found.values()]
        bars = [segment for c in ax.collections for segment in c.get_segments()]  # type: ignore[attr-defined]
        expected = [[float(f["ci_low"]), float(f["ci_high"])] for f in found.values()]
        assert [bar[:, 1].tolist() for bar in bars] == pytest.approx(np.array(expected))
        assert ax.get_xscale() == "log"
    styles = {
        (found_line["backbone"], line.get_color(), line.get_marker())
        for found_line, line in zip(found.values(), drawing.axes[0].get_lines(), strict=True)
    }
    assert len(styles) == len({style[1:] for style in styles}) == 10
    figure.write(plan, "size")
    folder = plan.folder / "figures"
    assert (folder / "size.csv").read_text() == figure.csv(plan)
    assert (folder / "size.png").read_bytes()[:4] == b"\x89PNG"
    svg = (folder / "size.svg").read_text()
    for text in ("Error against size", "GFLOPs", "Params (M)", "Top-1 error (%)", "ResNet34"):
        assert f">{text}<" in svg
    assert "mean and 95 % interval of 3 seeds" in svg
    assert "Left out" not in svg
    inputs = figure.inputs(plan)
    assert inputs[0] == f"{plan.folder}/complexity.csv"
    assert len(inputs) == 1 + 3 * len(found)


@pytest.mark.parametrize(
    ("study", "name", "spread"),
    [("cbam", "size", 1), ("cbam", "size", 0), ("zoo", "size-Z1", 1), ("zoo", "size-Z2", 0.3)],
)
def test_no_label_overlaps_another_or_a_marker(
    tiny: Plan, study: str, name: str, spread: float
) -> None:
    plan = planned(study)
    figure = of(plan, name)
    finish_all(plan, figure, spread=spread)
    drawing = figure.draw(plan, name)
    below = " ".join(text.get_text() for text in drawing.texts).replace("\n", " ")
    rows = [row.label for table in figure.tables for row in plan.rows(table)]
    for ax in drawing.axes:
        found = boxes(drawing, ax)
        for first, second in itertools.combinations(found, 2):
            texts = first.get_text(), second.get_text()
            assert not overlapping(found[first], found[second]), texts
        edge = 5.5 / 72 * drawing.dpi / 2
        for place in ax.transData.transform(markers(ax)):
            marker = Bbox([place - edge, place + edge])
            for label, box in found.items():
                assert not overlapping(marker, box), label.get_text()
        frame = ax.get_window_extent()
        assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in found.values())
        assert all(frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in found.values())
        # Every point has a label, or a number that is explained below.
        assert len(found) == len(rows)
        numbers = [label.get_text() for label in found if label.get_text().isdigit()]
        assert sorted(map(int, numbers)) == list(range(1, len(numbers) + 1))
        assert all(f" {number}\N{NO-BREAK SPACE}" in f" {below}" for number in numbers)
        rest = [label.get_text() for label in found if not label.get_text().isdigit()]
        assert all(any(row.endswith(text) for row in rows) for text in rest)


def test_a_row_without_a_run_is_left_out_and_named(tiny: Plan) -> None:
    plan = planned()
    figure = of(plan, "size")
    finish_all(plan, figure)
    gone, fewer, diverged = (plan.row_runs("table4", f"resnet{n}") for n in (34, 50, 101))
    for run in [*gone, fewer[2]]:
        remove(plan.runs_folder / run.path)
    finished(plan, diverged[0], 90, status="diverged", validation_top1_error=None)
    complexity = plan.folder / "complexity.csv"
    text = complexity.read_text().splitlines()
    complexity.write_text("\n".join(t for t in text if "mobilenet+se" not in t) + "\n")
    found = lines(plan)
    assert [found[f"resnet{n}"]["n"] for n in (34, 50, 101)] == ["0", "2", "2"]
    assert [found[f"resnet{n}"]["mean"] != "" for n in (34, 50, 101)] == [False, True, False]
    drawing = figure.draw(plan, "size")
    assert [len(markers(ax)) for ax in drawing.axes] == [len(found) - 3] * 2
    caption = " ".join(text.get_text() for text in drawing.texts).replace("\n", " ")
    assert "with a diverged one: ResNet34, ResNet101." in caption
    assert "Seeds are missing, of 3: ResNet50 has 2." in caption
    assert "no size of them: MobileNet + SE; attention-ablation render complexity" in caption


def test_it_is_drawn_of_one_seed_and_of_no_run(tiny: Plan) -> None:
    plan = planned(seeds=1)
    figure = of(plan, "size")
    figure.write(plan, "size")
    assert "no row has runs yet" in (plan.folder / "figures/size.svg").read_text()
    finish_all(plan, figure)
    drawing = figure.draw(plan, "size")
    assert not any(ax.collections for ax in drawing.axes)
    assert "one seed, so there is no interval" in " ".join(t.get_text() for t in drawing.texts)


def test_rows_of_equal_specs_are_one_point(tiny: Plan) -> None:
    edit(STUDY, "figures", "size", "tables", value=["table1", "table4"])
    found = lines(planned())
    assert list(found)[:4] == [
        "resnet50",
        "resnet50+se",
        "resnet50+channel-max",
        "resnet50+channel",
    ]
    assert found["resnet50"]["table"] == found["resnet50+se"]["table"] == "table1"
    assert found["resnet50+cbam"]["table"] == "table4"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("metric", "top1_eror", "unknown metric 'top1_eror'; did you mean 'top1_error'"),
        ("metric", "params_m", "unknown metric 'params_m'"),
        ("tables", ["table5", "tabel4"], "unknown table 'tabel4'; did you mean 'table4'"),
        ("tables", ["table4", "table6"], "the GFLOPs of detectors are not counted, got table6"),
        ("tables", [], "figures.size.tables: .* at least 1 item"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused(
    tiny: Plan, key: str, value: Any, message: str
) -> None:
    edit(STUDY, "figures", "size", key, value=value)
    with pytest.raises(UserError, match=message):
        load_plan(tiny.config)


def test_the_first_free_place_is_taken() -> None:
    places = [Box(0, 0, 2, 2), Box(10, 0, 12, 2), Box(20, 0, 22, 2), Box(30, 0, 32, 2)]
    inside = Box(5, -5, 50, 5)  # the first is outside
    assert first_free(places, inside, [Box(11, 1, 15, 5)]) == places[2]
    assert first_free(places, inside, [Box(0, 0, 50, 1)]) is None


def test_labels_of_points_at_one_place_become_numbers_in_every_panel() -> None:
    drawing = Figure((6, 3))
    crowded, wide = drawing.subplots(1, 2)
    for ax in (crowded, wide):
        ax.set(xlim=(0, 10), ylim=(0, 10))
    names = [f"label of point {n}" for n in range(25)]
    spread = [Point(1 + 4 * (n % 2), 0.3 + 0.37 * n, name) for n, name in enumerate(names)]
    numbered = label_points({crowded: [Point(5, 5, name) for name in names], wide: spread})
    assert 0 < len(numbered) < 25
    for ax in (crowded, wide):
        drawn = [label.get_text() for label in boxes(drawing, ax)]
        expected = [name for place, name in enumerate(names) if place not in numbered]
        assert drawn[: len(expected)] == expected
        numbers = list(range(1, len(numbered) + 1))
        assert list(map(int, drawn[len(expected) :])) == numbers
