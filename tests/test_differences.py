"""Claims about differences, margins and recipes: refused as written, or judged by hand."""

import re
from decimal import Decimal
from typing import Any

import pytest
from scipy import stats

from attention_ablation.base.errors import UserError
from attention_ablation.evidence.ledger import JudgedPair, ledger
from attention_ablation.report.collect import collect
from attention_ablation.study.claims import MINUS
from attention_ablation.study.expand import Plan
from tests.controls import CLAIMS, ROWS, STUDY, TIER, claim, errors, load
from tests.test_study import edit

REASON = "as a test"


UNEQUAL = [
    (
        "length",
        ["resnet18+se@x2", "resnet18"],
        {},
        r"multiplied: epochs by 2 for .*se@x2; nothing for",
    ),
    (
        "gain",
        ["resnet18+se", "no-zero-init:resnet18"],
        {},
        r"classification\.recipe\.zero_init_residual: True for gain:resnet18\+se; False for no-z",
    ),
    ("gain", ["resnet18", "no-zero-init:resnet18"], {}, "zero_init_residual: True for"),
    (
        "length",
        ["resnet18+se@x2", "resnet18@x2"],
        {"than": ["resnet18+se@x8", "resnet18"]},
        r"multiplied: epochs by 8 for length:resnet18\+se@x8; nothing",
    ),
]
EQUAL = [
    ("length", ["resnet18+se@x2", "resnet18@x2"], {}),
    ("length", ["resnet18+se@x8", "resnet18+se"], {}),  # one network at two lengths
    ("length", ["resnet18@x8", "gain:resnet18"], {}),
    ("length", ["resnet18+se@x8", "resnet18@x8"], {"than": ["resnet18+se", "resnet18"]}),
    ("gain", ["resnet18", "no-zero-init:resnet18"], {"metrics": ["params_m"]}),  # counted
]


@pytest.mark.parametrize(("table", "rows", "keys", "message"), UNEQUAL)
def test_a_claim_about_unequal_recipes_is_refused(
    controls: Plan, table: str, rows: list[str], keys: dict[str, Any], message: str
) -> None:
    edit(CLAIMS, "claims", value={"mine": claim(table, rows, **keys)})
    with pytest.raises(UserError) as refused:
        load()
    first, line, last = str(refused.value).splitlines()
    assert first.startswith(f"{TIER}: claims.mine: expected the same for all rows that are compar")
    assert re.search(message, line), line
    assert last == f"Compare rows of one recipe in {CLAIMS}."


@pytest.mark.parametrize(("table", "rows", "keys"), EQUAL)
def test_a_claim_about_equal_recipes_or_one_network_is_not(
    controls: Plan, table: str, rows: list[str], keys: dict[str, Any]
) -> None:
    edit(CLAIMS, "claims", value={"mine": claim(table, rows, **keys)})
    load()


def test_equal_times_of_unequal_keys_are_unequal_recipes(controls: Plan) -> None:
    table = {"title": "Rates", "columns": ["top1_error"], "varies": "learning_rate"}
    edit(STUDY, "tables", "rates", value=table)
    ROWS.write_text(ROWS.read_text() + "rates,Twice the rate,resnet18,se,2\n")
    edit(CLAIMS, "claims", value={"mine": claim("length", ["resnet18@x2", "rates:resnet18+se@x2"])})
    with pytest.raises(UserError, match=r"claims\.mine: expected the same for all rows"):
        load()


MISTAKES = [
    ({"than": ["resnet18+see", "resnet18"]}, r"unknown row 'resnet18\+see'; did you mean"),
    ({"than": ["lenght:resnet18", "resnet18"]}, "unknown table 'lenght'; did you mean 'length'"),
    ({"than": ["resnet18", "resnet18"]}, "expected four different rows with 'than'"),
    ({"than": ["resnet18@x8", "resnet18"]}, "expected four different rows with 'than'"),
    ({"than": ["resnet18"]}, r"than: .* at least 2 items"),
    ({"than": ["resnet18+se", "resnet18"], "predicate": "not-less", "margin": 1, "reason": REASON},
     "expected two 'rows' and the predicate less or greater with 'than'"),
    ({"predicate": "not-greater", "reason": REASON}, "expected 'margin' with 'not-greater'"),
    ({"predicate": "not-less", "margin": 1}, "expected 'reason' with 'not-less'; add it"),
    ({"margin": 1}, "expected 'reason' with 'less'; add it"),
    ({"reason": REASON}, "'reason' has no meaning with 'less'; remove it"),
    ({"margin": 0, "reason": REASON}, r"margin: .* greater than 0, but got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), MISTAKES)
def test_a_mistake_in_a_claim_is_named(controls: Plan, keys: dict[str, Any], message: str) -> None:
    mine = claim("length", ["resnet18+se@x8", "resnet18@x8"], **keys)
    edit(CLAIMS, "claims", value={"mine": mine})
    with pytest.raises(UserError, match=message):
        load()


def judged(plan: Plan) -> dict[str, JudgedPair]:
    """The first comparison of each claim."""
    return {c.key: c.pairs[0] for c in ledger(plan, collect(plan)).claims}


def test_a_difference_of_differences_by_hand(controls: Plan) -> None:
    keys = {"than": ["resnet18+se", "resnet18"], "margin": 0.5, "reason": REASON}
    mine = claim("length", ["resnet18+se@x8", "resnet18@x8"], **keys)
    edit(CLAIMS, "claims", value={"mine": mine})
    plan = load(5)
    errors(plan, "length:resnet18+se@x8", [20, 21, 19, 22, 20])
    errors(plan, "length:resnet18@x8", [19, 21, 18, 20, 20])  # 1, 0, 1, 2, 0
    errors(plan, "length:resnet18+se", [40, 44, 41, 43])  # the fifth seed is missing
    errors(plan, "length:resnet18", [30, 32, 33, 31, 29])  # 10, 12, 8, 12
    found = judged(plan)["mine"]
    text = f"(resnet18+se@x8 {MINUS} resnet18@x8) < (resnet18+se {MINUS} resnet18)"
    assert found.text == text
    assert found.n == 4
    assert found.difference == pytest.approx(1 - 10.5)
    # Variances of 1, 0, 1, 2 and of 10, 12, 8, 12, each with 3 degrees of freedom; two rows of a
    # recipe have none like them, so nothing is pooled.
    first, second = Decimal(2) / 3, Decimal(11) / 3
    both = first + second
    df = float(both**2 / (first**2 / 3 + second**2 / 3))
    half = float(stats.t.ppf(0.975, df)) * float(both / 4) ** 0.5
    assert found.interval == pytest.approx((-9.5 - half, -9.5 + half))
    p = 2 * float(stats.t.cdf(-9.5 / float(both / 4) ** 0.5, df))
    assert found.p_value == pytest.approx(p)
    assert (found.verdict, found.family) == ("supported", 1)


def test_margins_by_hand_and_that_of_a_tier(controls: Plan) -> None:
    rows = ["resnet18+half", "resnet18"]
    bound = {"margin": 1, "reason": REASON}
    edit(CLAIMS, "claims", value={
        "less": claim("gain", rows, **bound),
        "greater": claim("gain", rows, predicate="greater", **bound),
        "not-greater": claim("gain", rows, predicate="not-greater", **bound),
        "not-less": claim("gain", rows, predicate="not-less", **bound),
        "unbounded": claim("gain", rows),
    })  # fmt: skip
    edit(TIER, "margin", value=None)
    plan = load(5)
    differences = [0.1, 0.2, 0.0, 0.3, 0.15]
    errors(plan, "gain:resnet18", [20, 22, 21, 23, 20])
    errors(plan, "gain:resnet18+half", [20.1, 22.2, 21, 23.3, 20.15])
    found = judged(plan)
    verdicts = {key: pair.verdict for key, pair in found.items()}
    assert verdicts["less"] == verdicts["greater"] == "equivalent"
    assert verdicts["not-greater"] == verdicts["not-less"] == "supported"
    assert verdicts["unbounded"] == "undecided"
    assert found["not-greater"].text == "resnet18+half <= resnet18 + 1"
    above = stats.ttest_1samp(differences, 1, alternative="less").pvalue
    below = stats.ttest_1samp(differences, -1, alternative="greater").pvalue
    # Holm: less and greater are one hypothesis of four, and these two have the smallest p-values.
    assert {pair.family for pair in found.values()} == {4}
    assert found["not-less"].p_value == pytest.approx(4 * 2 * float(below))
    assert found["not-greater"].p_value == pytest.approx(3 * 2 * float(above))
    assert found["less"].p_equivalent == pytest.approx(3 * float(above))  # it is one-sided
    # A tier's margin stands in place of the claims': 0.05 points decide nothing here.
    edit(TIER, "margin", value=0.05)
    found = judged(load(5))
    verdicts = {key: pair.verdict for key, pair in found.items()}
    assert set(verdicts.values()) == {"undecided"}
    assert found["not-greater"].text == "resnet18+half <= resnet18 + 0.05"
    # 20 points worse are not 'not greater', by whichever margin.
    errors(plan, "gain:resnet18+half", [40, 42, 41.1, 43.2, 40])
    verdicts = {key: pair.verdict for key, pair in judged(load(5)).items()}
    assert (verdicts["not-greater"], verdicts["not-less"]) == ("contradicted", "supported")
    assert (verdicts["less"], verdicts["greater"]) == ("contradicted", "supported")


def test_a_tiers_margin_is_in_points(controls: Plan) -> None:
    keys = {"metrics": ["train_loss"], "predicate": "not-greater", "margin": 0.1, "reason": REASON}
    loss = {"heading": "Loss", "source": "train_loss"}
    edit(STUDY, "metrics", value={"train_loss": loss})
    edit(CLAIMS, "claims", value={"mine": claim("gain", ["resnet18+se", "resnet18"], **keys)})
    plan = load()
    assert plan.tier.margin == 2
    assert judged(plan)["mine"].text == "resnet18+se <= resnet18 + 0.1"
