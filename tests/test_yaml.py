"""YAML: read as PyYAML reads it, but for equal keys and for what only looks like a number."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attention_ablation.base.errors import UserError
from attention_ablation.base.yaml import parse_yaml, read_yaml
from tests.conftest import ROOT, plan_from

FILES = [ROOT / "config.yaml", *sorted(ROOT.glob("workflow/**/*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_projects_files_are_read_as_pyyaml_reads_them(path: Path) -> None:
    assert read_yaml(path) == yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001), ("1.5e3", 1500.0), ("-.5", -0.5), ("2.", 2.0), ("0.10", 0.1),
        ("0", 0), ("-3", -3), ("+12", 12), ("true", True), ("False", False), ("~", None),
        ("", None),
        ("010", "010"), ("0x10", "0x10"), ("0o17", "0o17"), ("1_000", "1_000"), ("1:30", "1:30"),
        ("yes", "yes"), ("off", "off"), (".inf", ".inf"), (".nan", ".nan"), ("nan", "nan"),
        ("2020-01-01", "2020-01-01"), ("1e", "1e"), (".", "."), ("'5'", "5"),
    ],
)  # fmt: skip
def test_only_what_is_plainly_a_number_is_one(text: str, value: Any) -> None:
    found = parse_yaml(text, "a test")
    assert (found, type(found)) == (value, type(value))


# Without subnormal ones, which a training in the same process has had flushed to 0.
@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_every_number_that_python_writes_is_read(number: float) -> None:
    assert parse_yaml(repr(number), "a test") == number


@given(st.text(st.sampled_from("ab1:-[]{}&*!<|>#'\",?%@` \n\t")) | st.text())
def test_any_text_is_data_or_a_sentence(text: str) -> None:
    with suppress(UserError):
        parse_yaml(text, "a test")


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, "9" * 5000, "!!int x", "!!float " + "1:" * 300 + "1", "!!timestamp x", "!!bool x"],
)
def test_what_pyyaml_itself_dies_of_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="a test: this is not valid YAML"):
        parse_yaml(text, "a test")


@pytest.mark.parametrize(
    ("file", "line", "again", "key"),
    [
        ("config.yaml", "tier: tiny", "tier: quick", "tier"),
        ("workflow/tiers/tiny.yaml", "    epochs: 2", "    epochs: 3", "epochs"),
        ("workflow/studies/cbam/study.yaml", "  se: {pooling: avg}", "  se: {}", "se"),
    ],
)
def test_a_key_given_twice_is_named_with_its_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, file: str, line: str, again: str, key: str
) -> None:
    monkeypatch.chdir(project)
    plan_from(Path("config.yaml"))
    before, after = Path(file).read_text().split(f"{line}\n", 1)
    Path(file).write_text(f"{before}{line}\n{again}\n{after}")
    number = before.count("\n") + 2
    with pytest.raises(
        UserError, match=f"^{file} line {number}: the key '{key}' is given twice; remove one"
    ):
        plan_from(Path("config.yaml"))


def test_a_key_that_is_merged_may_be_given_again() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}"
    assert parse_yaml(text, "a test")["c"] == {"x": 3, "y": 4}


def test_a_rate_may_be_written_with_an_exponent(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    path = Path("workflow/tiers/tiny.yaml")
    written = path.read_text().replace("weight_decay: 0.0005", "weight_decay: 5e-4")
    path.write_text(written)
    assert "5e-4" in written
    recipes = [spec.recipe for spec in plan_from(Path("config.yaml")).specs.values()]
    assert {recipe.weight_decay for recipe in recipes} == {0.0005}
