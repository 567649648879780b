"""The reproducibility checklist: true of every study and tier, and of what the runs recorded."""

from pathlib import Path

import pandas as pd
import pytest

from attention_ablation.report.checklist import Item, checklist
from attention_ablation.report.collect import collect
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from tests.conftest import ROOT
from tests.run_folders import CBAM, ROWS, SE, finished, write_metrics

PLANS = [("cbam", path.stem) for path in sorted((ROOT / "workflow/tiers").glob("*.yaml"))]


def answers(plan: Plan, runs: pd.DataFrame) -> dict[str, Item]:
    items = [item for items in checklist(plan, runs, {}, "").values() for item in items]
    return {item.question: item for item in items}


@pytest.mark.parametrize(("study", "tier"), [*PLANS, ("controls", "quick"), ("zoo", "quick")])
def test_it_is_filled_in_before_any_run(study: str, tier: str, tmp_path: Path) -> None:
    config = Config(study=study, tier=tier, seeds=[0], results=str(tmp_path / "none"))
    plan = load_plan(config, ROOT)
    found = answers(plan, collect(plan))
    assert {item.answer for item in found.values()} <= {"yes", "partly", "no", "not applicable"}
    for name in ("Training", "Run time or energy", "Infrastructure"):
        assert (found[name].answer, found[name].text) == ("no", "No run has finished yet.")
    assert found["Central tendency and variation"].answer == "no"
    sets = [run.spec.recipe.dataset for run in plan.runs.values()]
    for data in sets:
        assert f"{data.train_images:,} images to train on" in found["Statistics"].text
    composed = all(data.name.startswith("cluttered") for data in sets)
    assert found["Link to the data"].answer == ("yes" if composed else "partly")


def test_answers_follow_what_the_runs_recorded(tiny: Plan) -> None:
    write_metrics(tiny, SE, [25, 26], seconds=1800.0)
    write_metrics(tiny, CBAM, [9], seconds=5400.0, device="a GPU", git_dirty=True)
    found = answers(tiny, collect(tiny))
    assert found["Number of runs"].text.startswith("12 trainings, 9 missing, 3 completed.")
    spread = found["Central tendency and variation"]
    assert (spread.answer, "in 1 of 4 rows" in spread.text) == ("partly", True)
    time = found["Run time or energy"].text
    assert time.startswith("A training took 3000 s on average, all of them 2.5 h")
    assert time.endswith("Energy was not measured.")
    assert found["Infrastructure"].text == "a CPU: 2 runs; a GPU: 1 run."
    assert found["Training"] == Item(
        "Training", "partly", "Git commit c0ffee. 1 run had uncommitted changes."
    )
    assert found["Command that gives these results"].text.startswith(
        "make tables STUDY=cbam TIER=tiny TABLES=table3 SEEDS=0,1,2, with the files"
    )
    for row in ROWS:
        for run in tiny.row_runs("table3", row):
            finished(tiny, run, 20.0)
    found = answers(tiny, collect(tiny))
    assert found["Central tendency and variation"].answer == found["Training"].answer == "yes"
    assert "Other rows" not in found["Central tendency and variation"].text
