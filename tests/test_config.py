"""What config.yaml, tiers, rows.csv and specs may be, and where they may lie."""

import math
import shutil
from pathlib import Path

import pytest

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.runs.folder import read_run
from attention_ablation.study.expand import load_plan
from tests.conftest import plan_from
from tests.test_study import CONFIG, ROWS, TIER, edit


@pytest.mark.parametrize("text", ["- cbam", "cbam", "3", "1: 2", ""])
def test_a_config_without_keys_is_refused(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    monkeypatch.chdir(project)
    Path(CONFIG).write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: expected keys with values, got "):
        plan_from(Path(CONFIG))
    assert main(["status", "--set", "tier=quick"]) == 2
    assert "config.yaml: expected keys with values, got " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            ["table3", "table33"],
            r"tiny\.yaml: tables: unknown table 'table33'; did you mean 'table3'",
        ),
        (
            ["table6"],
            r"tiny\.yaml: there is no table of the study 'cbam' that this tier is for and",
        ),
    ],
)
def test_a_tier_that_is_for_no_table_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, tables: list[str], message: str
) -> None:
    monkeypatch.chdir(project)
    edit(Path(TIER), "tables", value=tables)
    edit(Path(TIER), "detection", value={})
    assert plan_from(Path(CONFIG)).tables == ["table3"]  # chosen, whatever the tier is for
    edit(Path(CONFIG), "tables", value="all")
    with pytest.raises(UserError, match=message):
        plan_from(Path(CONFIG))


def test_a_tier_that_is_a_folder_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    Path(TIER).unlink()
    Path(TIER).mkdir()
    with pytest.raises(UserError, match=r"tiny\.yaml: (it cannot|expected)"):
        plan_from(Path(CONFIG))


@pytest.mark.parametrize(
    ("kind", "path"),
    [("tier", "workflow/tiers/tiny.yaml"), ("study", "workflow/studies/cbam")],
)
def test_a_link_that_leads_out_of_the_folder_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str, path: str
) -> None:
    monkeypatch.chdir(project)
    (project / path).rename(project / "elsewhere")
    (project / path).symlink_to(project / "elsewhere")
    with pytest.raises(UserError, match=rf"--config: expected the {kind} .*, but a link leads"):
        plan_from(Path(CONFIG))


def test_names_that_look_like_numbers_are_names(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    given = {"study": "cbam", "tables": ["table3"]}
    # What Snakemake makes of --config tier=2024 and tier=nan.
    for name, value in (("2024", 2024), ("nan", math.nan)):
        shutil.copy(TIER, f"workflow/tiers/{name}.yaml")
        assert load_plan({**given, "tier": value}).config.tier == name


def test_printed_values_may_follow_a_byte_order_mark(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    rows = plan_from(Path(CONFIG)).study.rows
    Path(ROWS).write_bytes(b"\xef\xbb\xbf" + Path(ROWS).read_bytes().replace(b"\n", b"\r\n"))
    assert plan_from(Path(CONFIG)).study.rows == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\xff\x80", r"spec\.json: expected text in UTF-8"),
        (b"{", r"spec\.json: this is not valid JSON: "),
        (b"[1]", r"spec\.json: expected keys with values, got \[1\]"),
        (None, r"spec\.json: (it cannot|expected)"),
    ],
)
def test_a_spec_that_is_none_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "spec.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_run(path)
