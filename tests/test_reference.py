"""The project's own results, as they are committed: they are what their runs give."""

import shutil
import zipfile
from pathlib import Path

import pytest

from attention_ablation.report.collect import collect
from attention_ablation.report.verify import verify
from attention_ablation.runs.verify import WRONG
from benchmarks.reference import RESULTS, pack, plan_of, unpack
from tests.conftest import ROOT

PAGE = "report.html"  # its layout may change without its numbers


def test_committed_results_are_what_their_runs_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    # What is in git, without the runs that may be unpacked beside it.
    ignore = shutil.ignore_patterns("runs")
    shutil.copytree(ROOT / RESULTS, tmp_path / RESULTS, ignore=ignore)
    monkeypatch.chdir(tmp_path)
    plan = plan_of("controls")
    archive = plan.runs_folder.with_suffix(".zip")
    unpack(archive, plan.runs_folder)
    runs = collect(plan)
    assert (runs["status"] == "completed").sum() > 200
    findings = verify(plan, runs, weights=False)
    assert [f for f in findings if f.level == WRONG and not f.where.endswith(PAGE)] == []
    with zipfile.ZipFile(archive) as packed:
        before = {name: packed.read(name) for name in packed.namelist()}
    pack(archive, [plan, plan_of("cbam")])
    with zipfile.ZipFile(archive) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == before
    # An edited number is found.
    edited = plan.folder / "claims.csv"
    edited.write_text(edited.read_text().replace("supported", "undecided", 1))
    assert any(
        f.level == WRONG and "claims.csv" in f.where for f in verify(plan, runs, weights=False)
    )
