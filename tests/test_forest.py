"""The forest plot: which comparisons are in it, with which numbers, and how they are drawn."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.report.claims import CLAIMS_CSV
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from tests.conftest import write_yaml
from tests.run_folders import CBAM, PARALLEL, SE, SEEDS, SPATIAL_FIRST, write_metrics

STUDY = Path("workflow/studies/cbam/study.yaml")
ERRORS = {
    SE: [30, 31, 29.5], CBAM: [20, 21, 19.5], SPATIAL_FIRST: [20.2, 20.8, 19.9],
    PARALLEL: [59.9, 61, 59.6],
}  # fmt: skip


def texts(svg: str) -> dict[str, float]:
    """Return the texts of an SVG with their height on the page."""
    found = re.findall(r'<text style="[^"]*" (?:transform="translate\(\S+ (\S+)\)|x="\S+" y="(\S+)")[^>]*>([^<]+)', svg)  # fmt: skip # noqa: E501
    return {text: float(moved or y) for moved, y, text in found}


@pytest.fixture
def run(tiny: Plan) -> Plan:
    """All rows of Table 3 with known errors; the top-5 errors are a quarter of them."""
    for key, errors in ERRORS.items():
        write_metrics(tiny, key, errors)
    assert main(["render", "claims", "forest", *SEEDS]) == 0
    return tiny


def test_it_has_the_comparisons_that_were_made_on_runs(run: Plan) -> None:
    found = pd.read_csv(run.folder / "figures/forest.csv")
    # Neither what is counted, nor published, nor of Table 2, which is not selected.
    assert set(found["claim"]) == {"T3a", "T3b", "T3c"}
    assert len(found) == 2 * (2 + 1 + 3)
    for line in found.to_dict("records"):
        first, second = (np.mean(ERRORS[row]) for row in line["comparison"].split(" < "))
        share = 1 if line["metric"] == "top1_error" else 1 / 4
        assert line["difference"] == pytest.approx((first - second) * share, abs=1e-4)
        assert line["ci_low"] < line["difference"] < line["ci_high"]
    drawn = texts((run.folder / "figures/forest.svg").read_text())
    assert {"T3a", "T3b", "T3c", "supported", "contradicted", "undecided"} <= set(drawn)
    assert "equivalent" not in drawn
    assert drawn["T3a"] < drawn[f"{CBAM} &lt; {PARALLEL}, Top-1 error"] < drawn["T3b"]
    assert (run.folder / "figures/forest.png").read_bytes()[:4] == b"\x89PNG"


def test_ninety_lines_do_not_overlap(tiny: Plan) -> None:
    lines = [
        {
            "claim": f"T{number // 10}", "table": "table3", "metric": "top1_error",
            "comparison": f"a{number} < b", "difference": number / 10, "ci_low": number / 10 - 1,
            "ci_high": number / 10 + 1, "n": 3, "verdict": "undecided", "margin": 0.5,
            "published": "",
        }
        for number in range(90)
    ]  # fmt: skip
    tiny.folder.mkdir(parents=True)
    pd.DataFrame(lines).to_csv(tiny.folder / CLAIMS_CSV, index=False)
    tiny.study.figures["forest"].write(tiny, "forest")
    drawn = texts((tiny.folder / "figures/forest.svg").read_text())
    heights = sorted(y for text, y in drawn.items() if re.match(r"a\d+ |T\d$", text))
    assert len(heights) == 90 + 9
    assert min(np.diff(heights)) > 7 * 1.2  # points, of a font of 7
    assert "margin" in drawn


def test_its_input_is_the_ledger_whatever_tables_are_selected(tiny: Plan) -> None:
    figure = tiny.study.figures["forest"]
    assert figure.inputs(tiny) == [f"{tiny.folder}/claims.csv"]
    for tables in (["table1"], ["table6", "table7"]):
        assert "forest" in load_plan(Config(study="cbam", tier="tiny", tables=tables)).figures
    with pytest.raises(UserError, match=r"claims.csv: expected what `.* render claims` writes; th"):
        figure.write(tiny, "forest")
    tiny.folder.mkdir(parents=True)
    (tiny.folder / CLAIMS_CSV).write_text("claim,difference\nA,1\n")
    with pytest.raises(UserError, match="it has other columns, or no numbers"):
        figure.csv(tiny)
    # A plain `render` writes the ledger first; without runs the figure says that it is empty.
    assert main(["render", *SEEDS]) == 0
    svg = (tiny.folder / "figures/forest.svg").read_text()
    assert "no comparison has runs yet" in svg


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["top1_eror"], "figures.forest: unknown metric 'top1_eror'; did you mean 'top1_error'"),
        (["params_m"], "figures.forest: unknown metric 'params_m'"),  # counted, not of runs
        (["map", "gradcam_energy_in_box"], "expected metrics of one unit, .* got %, no unit"),
    ],
)
def test_metrics_that_share_no_axis_are_refused(
    tiny: Plan, metrics: list[str], message: str
) -> None:
    study: dict[str, Any] = yaml.safe_load(STUDY.read_text())
    study["figures"]["forest"]["metrics"] = metrics
    write_yaml(STUDY, study)
    with pytest.raises(UserError, match=message):
        load_plan(tiny.config)


def test_its_metrics_can_be_chosen_and_it_stands_with_the_claims(run: Plan) -> None:
    study: dict[str, Any] = yaml.safe_load(STUDY.read_text())
    study["figures"]["forest"]["metrics"] = ["top5_error"]
    write_yaml(STUDY, study)
    assert main(["render", "claims", "forest", "report", *SEEDS]) == 0
    found = pd.read_csv(run.folder / "figures/forest.csv")
    assert set(found["metric"]) == {"top5_error"}
    page = (run.folder / "report.html").read_text()
    claims = page.partition('<section id="claims">')[2].partition("</section>")[0]
    assert '<details id="forest">' in claims
    assert page.count('id="forest"') == 1
    assert claims.count("data:image/svg+xml") == 1
