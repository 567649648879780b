"""What is said at the end of `make tables`, of files whose content is known."""

import json
import re

from attention_ablation.report.claims import page_claims
from attention_ablation.report.collect import collect
from attention_ablation.report.summary import describe_results
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from tests.run_folders import CBAM, SE


def test_a_table_in_short_verdicts_and_the_page(done: Plan) -> None:
    lines = describe_results(done).splitlines()
    assert max(map(len, lines)) <= 80
    start = lines.index("Table 3. Ways of arranging channel and spatial attention")
    assert lines[start + 1].split() == ["Top-1", "error", "(%)", "paper"]
    # Errors of three seeds, 2 points apart from 20, 24, 28 and 32.
    assert [re.split("  +", line)[1:] for line in lines[start + 3 : start + 7]] == [
        ["22.0 ± 2.0", "23.14"], ["26.0 ± 2.0", "22.66"],
        ["30.0 ± 2.0", "22.78"], ["34.0 ± 2.0", "22.95"],
    ]  # fmt: skip
    ledger = page_claims(done, collect(done))
    assert ledger

    def counts(text: str, heading: str) -> set[str]:
        return set(text.partition(heading)[2].partition(".")[0].split(", "))

    said = counts(" ".join(lines), "Comparisons of the claims: ")
    assert said == counts(ledger["summary"], "Comparisons: ")
    assert lines[-1] == f"Open {done.folder}/report.html; tables and figures are beside it."
    # Complexity was not asked for: a plain `render` leaves it out.
    assert not re.search("not rendered|Mend what failed", " ".join(lines))


def test_what_is_not_there_has_its_reason(done: Plan) -> None:
    failed, killed = (done.row_runs("table3", key)[2] for key in (SE, CBAM))
    for run in (failed, killed):
        for name in ("metrics.json", "result.json"):
            (done.runs_folder / run.path / name).unlink()
    failure = {"status": "failed", "reason": "RuntimeError: " + 20 * "the size of a tensor "}
    (done.runs_folder / failed.path / "failure.json").write_text(json.dumps(failure))
    (done.runs_folder / killed.path / ".lock").write_text("process 1\n")
    (done.folder / "tables/table3.md").unlink()
    (done.folder / "logs").mkdir()
    (done.folder / "logs/table3.log").write_text("attention-ablation: first\nlast: a reason.\n\n")
    (done.folder / "logs/complexity.log").touch()
    text = describe_results(done)
    assert max(map(len, text.splitlines())) <= 80
    unwrapped = " ".join(text.split())
    assert f"10 of 12 trainings ended with a result. {failed.path}: failed: RuntimeEr" in unwrapped
    assert f"{killed.path}: interrupted: its process was ended from outside" in unwrapped
    assert "table3: not rendered: last: a reason." in unwrapped
    assert "complexity: not rendered: its log is empty" in unwrapped


def test_many_tables_are_no_wall(done: Plan) -> None:
    everything = load_plan(Config(study="cbam", tier="tiny", tables="all", seeds=[0, 1, 2]))
    (everything.folder / "tables/table4.csv").write_text("row,seeds\n" + 23 * "a,3\n" + "b,2\n")
    text = describe_results(everything)
    rows = "Rows with all 3 seeds: 4 of 4 in table3, 23 of 24 in table4."
    assert f"{rows} They are in {done.folder}/tables." in " ".join(text.split())
    assert len(text.splitlines()) < 25
