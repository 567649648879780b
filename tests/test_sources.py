"""What stands beside trained numbers: starting gains, step times, printed values of many papers."""

from pathlib import Path

import pytest

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.evidence.ledger import ledger
from attention_ablation.report.collect import collect
from attention_ablation.study.expand import Plan, load_plan
from tests.conftest import write_yaml

STUDY = {
    "title": "Two papers",
    "citation": "Ours.",
    "attentions": {"none": {}, "se": {"pooling": "avg", "start": "half"}, "eca": {"gate": "eca"}},
    "counted_on": {"image_size": 32, "classes": 10},
    "times": {"file": "times.csv", "conditions": "steps of a benchmark, one thread."},
    "tables": {
        "T": {
            "title": "Gates",
            "columns": ["params_m", "starting_gain", "time_over_bare", "top1_error"],
        }
    },
    "references": {
        "others": {
            "title": "Others",
            "source": "their table",
            "protocol": "one recipe",
            "results": {
                "T:resnet18": {"top1_error": 25.42},
                "T:resnet18+se": {"top1_error": 25.17},
            },
        }
    },
}
ROWS = """table,label,backbone,attention,params_m,top1_error,source,protocol
T,ResNet18,resnet18,none,11.18,29.60,paper A,90 epochs
T,SE,resnet18,se,,29.41,paper A,90 epochs
T,ECA,resnet18,eca,,29.08,paper B,100 epochs
"""
CLAIM = {"table": "T", "metrics": ["top1_error"], "margin": 0.3, "reason": "So it was agreed."}
CLAIMS = {
    name: {"place": "here", "says": "It helps.", "comparisons": [{**CLAIM, "rows": rows}]}
    for name, rows in {
        "of one paper": ["resnet18+se", "resnet18"],
        "of two papers": ["resnet18+eca", "resnet18+se"],
    }.items()
}
CHOICE = ["--set", "study=two", "--set", "tables=all"]
TIMES = "backbone,attention,time_over_bare\nresnet18,none,1\nresnet18,se,1.05\nresnet18,eca,1.04\n"


def written(**changes: str) -> Path:
    folder = Path("workflow/studies/two")
    folder.mkdir(exist_ok=True)
    write_yaml(folder / "study.yaml", STUDY)
    write_yaml(folder / "claims.yaml", {"claims": CLAIMS})
    for name, text in ({"rows": ROWS, "times": TIMES} | changes).items():
        (folder / f"{name}.csv").write_text(text)
    return folder


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(project)
    written()
    return load_plan({"study": "two", "tier": "tiny"})


def test_a_table_shows_gain_time_and_where_its_printed_values_are_from(plan: Plan) -> None:
    assert main(["render", "complexity", "T", "report", *CHOICE]) == 0
    text = (plan.folder / "tables/T.md").read_text()
    table = [[c.strip() for c in x.split("|")[1:-1]] for x in text.splitlines() if "|" in x]
    # A column of the paper only where something is printed.
    assert table[0] == [
        *("Architecture", "Params (M)", "paper", "Starting gain", "Time over no gate"),
        *("Top-1 error (%)", "paper"),
    ]
    assert [row[3:5] for row in table[2:]] == [["1.00", "1.00"], ["0.50", "1.05"], ["0.50", "1.04"]]
    # 29.08 is the least, but of another recipe, so no printed error is the best.
    assert [row[6] for row in table[2:]] == ["29.60", "29.41", "29.08"]
    assert (
        "Printed values. They are of different papers or recipes and cannot be compared with one "
        "another. ResNet18, SE: paper A; 90 epochs. ECA: paper B; 100 epochs." in text
    )
    assert "Time over no gate: steps of a benchmark, one thread." in text
    assert "Starting gain: what is left of standard normal noise F behind an untrained" in text
    lines = (plan.folder / "complexity.csv").read_text().splitlines()
    assert lines[0].endswith("verdict,starting_gain,time_over_bare")
    page = (plan.folder / "report.html").read_text()
    assert "Starting gain" in page


def test_printed_values_of_two_recipes_have_no_difference(plan: Plan) -> None:
    one, two = ledger(plan, collect(plan)).claims
    assert [float(pair.paper_difference or 0) for pair in one.pairs] == [pytest.approx(-0.19)]
    assert [pair.paper_difference for pair in two.pairs] == [None]
    assert one.paper_verdict == "holds"
    assert two.paper_verdict == "not printed"


def test_published_results_are_lines_of_one_run(plan: Plan) -> None:
    one, two = ledger(plan, collect(plan)).claims
    assert [(p.reference, p.n, p.verdict) for p in one.published] == [("Others", 1, "undecided")]
    assert one.published[0].difference == pytest.approx(-0.25)
    assert two.published == []


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("backbone,attention\nresnet18,none\n", "expected the columns backbone, attention and"),
        (TIMES.replace("1.05", "fast"), "time_over_bare, a number"),
    ],
)
def test_times_that_cannot_be_read_are_named(plan: Plan, times: str, message: str) -> None:
    written(times=times)
    with pytest.raises(UserError, match=message):
        load_plan({"study": "two", "tier": "tiny"})


def test_a_result_of_an_unknown_row_is_named(plan: Plan) -> None:
    written(rows=ROWS.replace("T,SE,resnet18,se,,29.41,paper A,90 epochs\n", ""))
    with pytest.raises(UserError, match=r"references\.others\.results: unknown row .T:resnet18.se"):
        load_plan({"study": "two", "tier": "tiny"})


def test_the_zoo_has_each_papers_own_values(plan: Plan) -> None:
    zoo = load_plan({"study": "zoo", "tier": "quick"})
    printed = {row.key: row for row in zoo.study.table_rows("Z1") if "top1_error" in row.printed}
    assert len({row.source for row in printed.values()}) == 7
    assert all(row.source for row in printed.values())
    labels = [row.label for row in zoo.study.rows]
    for gate in ("WaveNet-C", "CAT", "SCA"):
        assert all("(reading)" in label for label in labels if gate in label)
    assert all("(reconstruction)" in x for x in labels if "DA2" in x or "DREAL" in x)
