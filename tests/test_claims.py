"""The claim ledger: verdicts on runs whose numbers are known, and its files."""

import csv
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.evidence.ledger import (
    JudgedClaim,
    Ledger,
    ledger,
)
from attention_ablation.evidence.statistics import (
    ALPHA,
)
from attention_ablation.report.claims import claims_frame, write_claims
from attention_ablation.report.collect import collect
from attention_ablation.report.html import write_report
from attention_ablation.report.results import MINUS
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.files import load_study
from tests.conftest import write_yaml
from tests.run_folders import (
    CBAM,
    PARALLEL,
    ROWS,
    SE,
    SEEDS,
    SPATIAL_FIRST,
    finished,
    write_metrics,
)
from tests.test_claims_file import CLAIMS
from tests.test_report import markdown

COLUMNS = (
    "claim,table,metric,comparison,difference,ci_low,ci_high,n,verdict,"
    "reason,paper_difference,paper_verdict,seeds_needed,p_adjusted,margin,published"
)


def by_text(judged: Ledger) -> dict[tuple[str, str, str], Any]:
    return {(c.key, p.pair.metric, p.pair.text): p for c in judged.claims for p in c.pairs}


def of(judged: Ledger, key: str) -> JudgedClaim:
    return next(claim for claim in judged.claims if claim.key == key)


def test_verdicts_of_runs_whose_numbers_are_known(tiny: Plan) -> None:
    # Parallel is far behind, by much the same in every seed; CBAM and the other order are close.
    write_metrics(tiny, SE, [30, 31, 29.5])
    write_metrics(tiny, CBAM, [20, 21, 19.5])  # 10 below SE in every seed: no spread
    write_metrics(tiny, SPATIAL_FIRST, [20.2, 20.8, 19.9])
    write_metrics(tiny, PARALLEL, [59.9, 61, 59.6])
    judged = ledger(tiny, collect(tiny))
    pairs = by_text(judged)
    decided = pairs["T3a", "top1_error", f"{CBAM} < {PARALLEL}"]
    assert (decided.verdict, decided.n, decided.reason) == ("supported", 3, "")
    assert decided.difference == pytest.approx(-40)
    assert decided.interval[1] < 0
    assert decided.p_value <= ALPHA
    assert decided.paper_difference == Decimal("-0.29")
    wrong = pairs["T3c", "top1_error", f"{PARALLEL} < {SE}"]
    assert (wrong.verdict, wrong.paper_verdict) == ("contradicted", "holds")
    assert of(judged, "T3c").verdict == "contradicted"
    close = pairs["T3b", "top1_error", f"{CBAM} < {SPATIAL_FIRST}"]
    assert close.verdict == "undecided"
    assert close.reason.startswith("p = ")
    assert close.seeds_needed > 3
    flat = pairs["T3c", "top1_error", f"{CBAM} < {SE}"]
    # What these differences do not tell of their spread the other rows do.
    assert (flat.verdict, flat.difference) == ("supported", -10)
    # Six distinct pairs of Table 3 but one, in two metrics.
    assert judged.family == 2 * 6
    assert of(judged, "T3a").verdict == "supported"
    assert of(judged, "T3b").verdict == "undecided"


def test_what_is_not_selected_or_not_there_is_not_run(tiny: Plan) -> None:
    judged = ledger(tiny, collect(tiny))
    assert {claim.verdict for claim in judged.claims} == {"not run"}
    assert judged.family == 0
    reasons = {p.reason for claim in judged.claims for p in claim.pairs}
    assert reasons == {
        *(f"table{n} is not selected" for n in (1, 2, 4, 5, 6, 7)),
        *(
            f"no completed run of {first} and {second}"
            for first, second in [
                (CBAM, PARALLEL), (SPATIAL_FIRST, PARALLEL), (CBAM, SPATIAL_FIRST),
                (CBAM, SE), (SPATIAL_FIRST, SE), (PARALLEL, SE),
            ]
        ),
    }  # fmt: skip
    assert of(judged, "T6").paper_verdict == "does not hold"
    assert of(judged, "T7b").paper_verdict == "holds"
    assert of(judged, "F5a").paper_verdict == "not printed"


def test_one_seed_decides_nothing_and_shows_the_difference(tiny: Plan) -> None:
    for key, error in zip(ROWS, (10, 20, 30, 90), strict=True):
        write_metrics(tiny, key, [error])
    pairs = by_text(ledger(tiny, collect(tiny)))
    found = pairs["T3a", "top1_error", f"{CBAM} < {PARALLEL}"]
    assert (found.verdict, found.reason, found.n) == ("undecided", "one seed", 1)
    assert (found.difference, found.interval, found.seeds_needed) == (-70, None, None)


def test_seeds_are_paired_and_a_diverged_run_leaves_it_open(tiny: Plan) -> None:
    write_metrics(tiny, PARALLEL, [40, 50, 60])
    write_metrics(tiny, CBAM, [20, 31])  # the third seed is missing
    write_metrics(tiny, SE, [10, 11, 12])
    write_metrics(tiny, SE, [99], status="diverged", validation_top1_error=None)
    pairs = by_text(ledger(tiny, collect(tiny)))
    found = pairs["T3a", "top1_error", f"{CBAM} < {PARALLEL}"]
    assert (found.n, found.difference) == (2, -19.5)
    diverged = pairs["T3c", "top1_error", f"{PARALLEL} < {SE}"]
    assert (diverged.verdict, diverged.reason) == ("undecided", "a run diverged")
    assert (diverged.n, diverged.difference) == (0, None)


def test_what_is_not_run_names_the_rows_or_seeds_that_lack_a_run(tiny: Plan) -> None:
    write_metrics(tiny, PARALLEL, [40])
    for run in tiny.row_runs("table3", CBAM)[1:]:
        finished(tiny, run, 20.0)
    runs = collect(tiny)
    pairs = by_text(ledger(tiny, runs))
    assert {
        text: pairs["T3a" if PARALLEL in text else "T3c", "top1_error", text].reason
        for text in (f"{CBAM} < {PARALLEL}", f"{CBAM} < {SE}", f"{SPATIAL_FIRST} < {SE}")
    } == {
        f"{CBAM} < {PARALLEL}": f"no seed has all rows ({CBAM}: 1, 2; {PARALLEL}: 0)",
        f"{CBAM} < {SE}": f"no completed run of {SE}",
        f"{SPATIAL_FIRST} < {SE}": f"no completed run of {SPATIAL_FIRST} and {SE}",
    }
    write_claims(tiny, runs)
    write_report(tiny, runs)
    text = (tiny.folder / "claims.md").read_text()
    # In both metrics.
    assert f"- not run: 2 comparisons: no seed has all rows ({CBAM}: 1, 2; {PARALLEL}: 0)\n" in text
    assert "**T7b**: not run\n\n- not run: 2 comparisons: table7 is not selected\n" in text
    assert (
        f"not run</span> {CBAM} &lt; {SE}, Top-1 error (table3): no completed run of {SE}"
        in (tiny.folder / "report.html").read_text()
    )


def test_counts_are_compared_exactly(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table4"]))
    plan.folder.mkdir(parents=True)
    (plan.folder / "complexity.csv").write_text(
        "table,row,params,gflops,verdict\n"
        "table4,resnet18,11689512,1.814073,match\ntable4,resnet18+cbam,11779392,1.815064,match\n"
        "table4,resnet50,25557032,3.857973,match\ntable4,resnet50+cbam,28089624,3.864362,match\n"
    )
    judged = ledger(plan, collect(plan))
    pairs = by_text(judged)
    light = pairs["T4c", "params_m", "resnet18+cbam <= resnet18 + 5 %"]
    assert (light.verdict, light.n, light.interval) == ("supported", 1, None)
    assert light.difference == pytest.approx(0.7689, abs=1e-4)
    heavy = pairs["T4c", "params_m", "resnet50+cbam <= resnet50 + 5 %"]
    assert heavy.verdict == "contradicted"
    assert pairs["T4c", "gflops", "resnet50+cbam <= resnet50 + 5 %"].verdict == "supported"
    missing = pairs["T4c", "gflops", "resnet101+cbam <= resnet101 + 5 %"]
    assert missing.reason == "resnet101+cbam of table4 is not counted yet"
    assert of(judged, "T4c").verdict == "contradicted"


def test_grad_cams_numbers_are_judged_once_runs_have_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table4"], seeds=[0, 1, 2]))
    frame = collect(plan)
    frame["status"] = "completed"
    frame["gradcam_energy_in_box"] = frame["seed"] * 0.01
    for run in plan.row_runs("table4", "resnet50+cbam"):
        frame.loc[run.path, "gradcam_energy_in_box"] = 0.5 + run.seed * 0.0101
    frame["gradcam_target_probability"] = None  # nobody has looked yet
    judged = ledger(plan, frame.convert_dtypes())
    assert of(judged, "F5a").verdict == "supported"
    assert of(judged, "F5b").verdict == "not run"
    assert judged.family == 2


def test_rows_shared_by_tables_are_one_test(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="cbam", tier="tiny", seeds=[0, 1]))
    frame = collect(plan)
    frame["status"] = "completed"
    generator = np.random.default_rng(0)
    for column in ("validation_top1_error", "validation_top5_error", "train_top1_error"):
        frame[column] = generator.normal(30, 1, size=len(frame))
    judged = ledger(plan, frame)
    pairs = by_text(judged)
    tests = {
        (frozenset(plan.specs[row].run_id for row in (p.pair.first, p.pair.second)), p.pair.metric)
        for p in pairs.values()
        if p.n and p.p_value is not None
    }
    assert judged.family == len(tests) == 83  # 39 pairs in two metrics; Figure 4 adds five
    # CBAM against SE: of Table 3, of Table 4's ResNet50, and of Figure 4.
    shared = [pairs[c, "top1_error", f"{CBAM} < {SE}"].p_value for c in ("T3c", "T4b", "F4")]
    assert len(set(shared)) == 1


def test_render_claims_writes_both_files(tiny: Plan) -> None:
    for key, errors in zip(
        ROWS, ([30, 31, 32], [20, 21, 23], [21, 20, 22], [60, 61, 63]), strict=True
    ):
        write_metrics(tiny, key, errors)
    assert main(["render", "claims", "--set", "seeds=[0, 1, 2]"]) == 0
    with (tiny.folder / "claims.csv").open() as file:
        header, *lines = csv.reader(file)
    assert ",".join(header) == COLUMNS
    assert len(lines) == 122 + 5  # five of them on published curves
    records = [dict(zip(header, line, strict=True)) for line in lines]
    found = next(r for r in records if r["comparison"] == f"{CBAM} < {SE}" and r["claim"] == "T3c")
    # Differences of -10, -10 and -9: a variance of 1/3 with 2 degrees of freedom. The other rows'
    # are 1 and 7/3, of a difference twice their mean, with 0.6 x 2 x 2 degrees.
    variance = (2.4 * (1 + 7 / 3) + 2 / 3) / 4.4
    half = stats.t.ppf(0.975, 4.4) * (variance / 3) ** 0.5
    assert float(found["difference"]) == pytest.approx(-29 / 3, abs=1e-4)
    assert float(found["ci_low"]) == pytest.approx(-29 / 3 - half, abs=1e-4)
    assert float(found["ci_high"]) == pytest.approx(-29 / 3 + half, abs=1e-4)
    assert (found["table"], found["metric"], found["n"]) == ("table3", "top1_error", "3")
    assert (found["paper_difference"], found["paper_verdict"]) == ("-0.48", "holds")
    assert found["seeds_needed"].isdigit()
    absent = next(r for r in records if r["table"] == "table6")
    assert (absent["difference"], absent["n"], absent["verdict"]) == ("", "0", "not run")
    assert absent["reason"] == "table6 is not selected"
    assert not found["reason"]
    assert (absent["paper_difference"], absent["paper_verdict"]) == ("2", "holds")
    text = (tiny.folder / "claims.md").read_text()
    by_claim = {line.split()[1]: line for line in text.splitlines() if re.match(r"\| [TF]\d", line)}
    assert len(by_claim) == 18
    assert "| does not hold (5 of 8 hold)" in by_claim["T2c"]
    assert "| holds (4 not printed)" in by_claim["F4"]
    assert "6 not run)" in by_claim["T3c"]
    assert "Holm's correction for all 12 distinct comparisons" in text
    assert "It cannot say what holds at full size" in text
    frame = claims_frame(ledger(tiny, collect(tiny)))
    pd.testing.assert_series_equal(
        frame["verdict"], pd.read_csv(tiny.folder / "claims.csv")["verdict"], check_dtype=False
    )


def test_what_is_decided_comes_first(tiny: Plan) -> None:
    write_metrics(tiny, SE, [30, 31, 29.5])
    write_metrics(tiny, CBAM, [20, 21, 19.5])
    write_metrics(tiny, SPATIAL_FIRST, [20.2, 20.8, 19.9])
    write_metrics(tiny, PARALLEL, [59.9, 61, 59.6])
    runs = collect(tiny)
    judged = ledger(tiny, runs)
    write_claims(tiny, runs)
    write_report(tiny, runs)
    text = (tiny.folder / "claims.md").read_text()
    page = (tiny.folder / "report.html").read_text()
    page = page.partition('<section id="claims">')[2].partition("</section>")[0]
    order = ["T3a", "T3c", "T3b"]  # supported, contradicted, undecided; of the rest none is run
    order += [claim.key for claim in judged.claims if claim.key not in order]
    assert re.findall(r"^\| ([TF]\w+)", text, re.M) == order
    assert re.findall(r'<th scope="row">(\w+)', page) == order
    # Below the table the comparisons of each, decided ones first here, too.
    lists = re.findall(r"^\*\*([TF]\w+)\*\*: (.+)", text, re.M)
    assert lists[:3] == [("T3a", "supported"), ("T3c", "contradicted"), ("T3b", "undecided")]
    assert lists[3:] == [(key, "not run") for key in order[3:]]
    verdicts = re.findall(r"^- (supported|contradicted|undecided|not run): (?!\d)", text, re.M)
    assert len(verdicts) == 2 * (2 + 3 + 1)
    assert verdicts[-2:] == ["undecided"] * 2
    assert "- not run: 6 comparisons: table2 is not selected\n" in text  # of T3c
    close = by_text(judged)["T3b", "top1_error", f"{CBAM} < {SPATIAL_FIRST}"]
    line = f"{CBAM} < {SPATIAL_FIRST}, Top-1 error (table3): \N{MINUS SIGN}0.13 points, "
    assert line in text
    needed = f"about {close.seeds_needed} seeds would decide such a difference"
    assert f"n = 3; {needed}; paper: holds (" in text
    assert f"undecided</span> {line.replace('<', '&lt;')}" in page
    assert "Claims: 1 supported, 1 contradicted, 1 undecided, 15 not run." in page


def test_equivalent_rows_say_so_with_the_margin(tiny: Plan) -> None:
    comparison: dict[str, Any] = {
        "table": "table3",
        "rows": [CBAM, SPATIAL_FIRST],
        "metrics": ["top1_error"],
    }
    comparison |= {"margin": 0.3, "reason": "The tier has its own, of 2 points."}
    claim = {"place": "Table 3", "says": "The order matters.", "comparisons": [comparison]}
    write_yaml(CLAIMS, {"claims": {"A": claim}})
    plan = load_plan(tiny.config)
    write_metrics(plan, CBAM, [20, 21, 22])
    write_metrics(plan, SPATIAL_FIRST, [20.1, 20.9, 22.1])
    assert main(["render", "claims", "report", *SEEDS]) == 0
    text = (plan.folder / "claims.md").read_text()
    assert re.search(r"- equivalent: .*: \N{MINUS SIGN}0.03 points, .*, n = 3, margin ±2 ", text)
    page = (plan.folder / "report.html").read_text()
    assert page.count('<span class="verdict equivalent">equivalent</span>') == 2
    assert "Claims: 1 equivalent. Comparisons: 1 equivalent." in page
    (line,) = csv.DictReader((plan.folder / "claims.csv").read_text().splitlines())
    assert (line["verdict"], line["margin"], line["published"]) == ("equivalent", "2.0", "")
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert style.count("--same:") == 2  # in the light and in the dark theme
    # By whichever verdict; the margin stands in the line once.
    for error, verdict in ((24, "undecided"), (60, "supported"), (1, "contradicted")):
        write_metrics(plan, SPATIAL_FIRST, [error, error + 1.1, error - 0.4])
        assert main(["render", "claims", "report", *SEEDS]) == 0
        (found,) = re.findall(rf"- {verdict}: .*", (plan.folder / "claims.md").read_text())
        assert found.count("margin") == found.count(", n = 3, margin ±2 points") == 1
        assert ", n = 3, margin ±2 points" in (plan.folder / "report.html").read_text()


def test_no_heading_lays_the_studys_own_claims_on_a_paper(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    plan = load_plan(Config(study="zoo", tier="tiny", tables=["Z2"]))
    runs = collect(plan)
    write_claims(plan, runs)
    write_report(plan, runs)
    text = (plan.folder / "claims.md").read_text()
    page = (plan.folder / "report.html").read_text()
    page = page.partition('<section id="claims">')[2].partition("</section>")[0]
    # Claims of many papers, and controls of none.
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    places = {row[1]: row[2] for row in rows if len(row) > 5}
    assert (places["eca-beats-se"], places["gain-costs"]) == (
        "ECA-Net, arXiv:1910.03151",
        "control",
    )
    for shown in (text, page):
        assert "the paper" not in shown.lower()
        assert "Printed cells" in shown
        assert "control" in shown


def test_tables_say_why_the_best_is_not_resolved(tiny: Plan) -> None:
    write_metrics(tiny, SE, [30, 31, 32])
    write_metrics(tiny, CBAM, [20, 21, 23])
    write_metrics(tiny, SPATIAL_FIRST, [21, 20, 24])
    write_metrics(tiny, PARALLEL, [60, 61, 63])
    interval = stats.ttest_rel([20, 21, 23], [21, 20, 24]).confidence_interval()
    assert (
        "- Top-1 error (%), best not resolved: ResNet50 + channel + spatial against "
        f"ResNet50 + spatial + channel: difference {MINUS}0.33, 95 % interval "
        f"{MINUS}{-interval.low:.2f} to {interval.high:.2f}, n = 3." in markdown(tiny)
    )
    write_metrics(tiny, SPATIAL_FIRST, [21, 22, 24])
    assert f"difference {MINUS}1.00, the same in every seed, n = 3" in markdown(tiny)
    write_metrics(tiny, SPATIAL_FIRST, [41, 42, 43])
    write_metrics(tiny, SE, [50, 51, 53])
    assert "not resolved" not in markdown(tiny)


def test_a_study_without_claims_has_no_ledger(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    CLAIMS.unlink()
    with pytest.raises(UserError, match=r"figures.forest: expected a study with claims to draw"):
        load_study(Path("workflow/studies"), "cbam", "a test")
    study = yaml.safe_load(CLAIMS.with_name("study.yaml").read_text())
    study["figures"].pop("forest")
    write_yaml(CLAIMS.with_name("study.yaml"), study)
    assert load_study(Path("workflow/studies"), "cbam", "a test").claims == {}
    assert main(["render", "claims"]) == 2
    assert "unknown table or figure 'claims'" in capsys.readouterr().err
    assert main(["render"]) == 0
    assert not (tiny.folder / "claims.csv").exists()
