"""Tables that set or vary a key of the recipe: the study controls."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_ablation.base.errors import UserError
from attention_ablation.spec.recipes import ClassificationRecipe
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from tests.conftest import ROOT
from tests.controls import CLAIMS, STUDY, change_rows, claim, load
from tests.test_study import edit


def test_every_row_plans_at_quick_and_shares_the_runs_of_others() -> None:
    plan = load_plan(Config(study="controls", tier="quick"), ROOT)
    assert plan.specs.keys() == {(row.table, row.key) for row in plan.study.rows}
    cbam = load_plan(Config(study="cbam", tier="quick"), ROOT)
    bare = {
        plan.specs["gain", "resnet18"].run_id,
        plan.specs["length", "resnet18"].run_id,
        cbam.specs["table4", "resnet18"].run_id,
    }
    assert len(bare) == 1
    # The tier starts the paper's gates as the identity, and the study's say so themselves.
    identity = plan.specs["gain", "resnet18+cbam-identity"].run_id
    assert identity == cbam.specs["table4", "resnet18+cbam"].run_id
    assert identity != plan.specs["gain", "resnet18+cbam"].run_id
    started = {spec.recipe.zero_init_residual for (t, _), spec in plan.specs.items() if t[0] == "n"}
    assert started == {False}
    assert plan.specs["gain", "resnet18"].recipe.zero_init_residual
    epochs = [plan.specs["length", f"resnet18+se{x}"].recipe.epochs for x in ("", "@x2", "@x8")]
    assert epochs == [5, 10, 40]


RECIPE = load_plan(Config(study="cbam", tier="quick"), ROOT).tier.classification.recipe
SCHEDULES = st.one_of(
    st.fixed_dictionaries({"name": st.just("step"), "every": st.integers(1, 50)}),
    st.fixed_dictionaries(
        {
            "name": st.just("milestones"),
            "at": st.lists(st.integers(1, 50), min_size=1, max_size=4),
            "warmup_epochs": st.integers(0, 9),
        }
    ),
    st.fixed_dictionaries(
        {"name": st.just("one-cycle"), "warmup": st.floats(0, 0.9, allow_subnormal=False)}
    ),
    st.fixed_dictionaries({"name": st.just("cosine"), "warmup_epochs": st.integers(0, 9)}),
)


@given(schedule=SCHEDULES, epochs=st.integers(10, 300), times=st.integers(1, 20))
def test_epochs_and_what_counts_them_are_multiplied_and_nothing_else(
    schedule: dict[str, Any], epochs: int, times: int
) -> None:
    before = RECIPE.model_dump(mode="json") | {"schedule": schedule, "epochs": epochs}
    before = ClassificationRecipe.model_validate(before).model_dump(mode="json")
    recipe = ClassificationRecipe.model_validate(before)
    after = ClassificationRecipe.model_validate(recipe.multiplied("epochs", float(times)))
    expected = before | {"epochs": epochs * times, "schedule": dict(before["schedule"])}
    for key in {"every", "warmup_epochs"} & set(schedule):
        expected["schedule"][key] = schedule[key] * times
    if "at" in schedule:
        expected["schedule"]["at"] = [epoch * times for epoch in schedule["at"]]
    assert after.model_dump(mode="json") == expected
    assert recipe.model_dump(mode="json") == before  # itself it stays


@given(
    key=st.sampled_from(["learning_rate", "weight_decay", "batch_size"]), times=st.integers(1, 9)
)
def test_another_key_is_multiplied_alone(key: str, times: int) -> None:
    before = RECIPE.model_dump(mode="json")
    after = RECIPE.multiplied(key, float(times))
    assert after.pop(key) == pytest.approx(before.pop(key) * times)
    assert after == before


def test_whole_epochs_stay_whole() -> None:
    assert RECIPE.model_copy(update={"epochs": 10}).multiplied("epochs", 1.1)["epochs"] == 11
    assert RECIPE.model_copy(update={"epochs": 70}).multiplied("epochs", 0.1)["epochs"] == 7


def test_a_fraction_of_an_epoch_is_refused(controls: Plan) -> None:
    change_rows("resnet18,se,2\n", "resnet18,se,1.3\n")
    expected = r"rows\.csv: length: ResNet18 \+ SE, 2 . as long: times: epochs: .*integer.* 2\.6"
    with pytest.raises(UserError, match=expected):
        load()


@pytest.mark.parametrize("times", ["-2", "x", "1e3"])
def test_times_is_a_number(controls: Plan, times: str) -> None:
    change_rows("resnet18,se,2\n", f"resnet18,se,{times}\n")
    with pytest.raises(UserError, match=rf"line 48: times: expected a number, got '{times}'"):
        load()


def test_times_is_above_zero(controls: Plan) -> None:
    change_rows("resnet18,se,2\n", "resnet18,se,0\n")
    with pytest.raises(UserError, match=r"line 48: times: .* greater than 0, but got 0"):
        load()


def test_times_without_a_key_to_vary_is_refused(controls: Plan) -> None:
    change_rows("gain,ResNet18,resnet18,none,\n", "gain,ResNet18,resnet18,none,2\n")
    expected = r"line 2: 'times' has no meaning in gain, which varies nothing; say what .* epochs"
    with pytest.raises(UserError, match=expected):
        load()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"zero_init_residul": False},
            "unknown key 'zero_init_residul'; did you mean 'zero_init_r",
        ),
        ({"epochs": 1.5}, r"epochs: .*integer.* got 1\.5"),
        ({"batch_size": 65}, r"batch_size of at most dataset.train_images \(64\), got 65"),
        ({"schedule": {"name": "cosine"}}, r"tables\.no-zero-init\.recipe\.schedule"),
    ],
)
def test_what_a_table_sets_is_checked_as_a_tier_is(
    controls: Plan, recipe: dict[str, Any], message: str
) -> None:
    edit(STUDY, "tables", "no-zero-init", "recipe", value=recipe)
    with pytest.raises(UserError, match=message) as refused:
        load()
    assert f"{STUDY}: " in str(refused.value)
    assert "tables.no-zero-init.recipe" in str(refused.value)


def test_rows_of_equal_times_are_a_group(controls: Plan) -> None:
    groups = [{row.times for row in group} for group in controls.groups("length")]
    assert groups == [{None}, {2}, {4}, {8}]
    assert [len(group) for group in controls.groups("gain")] == [9, 9, 9]  # by backbone
    # What is said to be once as long is in the group of those of which nothing is said.
    change_rows("resnet18,se,\nlength", "resnet18,se,1\nlength")
    edit(CLAIMS, "claims", value={"a": claim("length", ["resnet18+se@x1", "resnet18"])})
    plan = load()
    assert [len(group) for group in plan.groups("length")] == [7, 7, 7, 7]
    assert plan.specs["length", "resnet18+se@x1"] == controls.specs["length", "resnet18+se"]
