"""The project's own results, as they are committed: they are what their runs give."""

import shutil
import zipfile
from pathlib import Path

import pytest

from attention_ablation.report.collect import collect
from attention_ablation.report.verify import verify
from attention_ablation.runs.verify import WRONG
from benchmarks.reference import RESULTS, STUDIES, pack, plan_of, unpack, weights_needed
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
    unpack(archive, [plan])
    runs = collect(plan)
    assert (runs["status"] == "completed").sum() > 200
    findings = verify(plan, runs, weights=False)
    assert [f for f in findings if f.level == WRONG and not f.where.endswith(PAGE)] == []
    with zipfile.ZipFile(archive) as packed:
        before = {name: packed.read(name) for name in packed.namelist()}
    pack(archive, [plan_of(study) for study in STUDIES])
    with zipfile.ZipFile(archive) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == before
    # An edited number is found.
    edited = plan.folder / "claims.csv"
    edited.write_text(edited.read_text().replace("supported", "undecided", 1))
    assert any(
        f.level == WRONG and "claims.csv" in f.where for f in verify(plan, runs, weights=False)
    )


def test_what_a_detector_or_grad_cam_still_needs_is_trained_again() -> None:
    plans = [plan_of(study, ROOT) for study in ("controls", "cbam")]
    cbam = plans[1]
    (start,) = {run.initial for run in cbam.row_runs("table6", "resnet50+faster-rcnn")[:1]}
    assert start
    shown = cbam.row_runs("table4", "resnet50+se")[0].path
    everything = {f"{path}/metrics.json" for plan in plans for path in plan.runs}
    needed = weights_needed(plans, everything)
    assert shown in needed  # by Grad-CAM
    assert cbam.row_runs("table4", "resnet18")[0].path not in needed
    explained = {path.replace("metrics", "gradcam") for path in everything}
    assert weights_needed(plans, everything | explained) == set()
    detector = cbam.row_runs("table6", "resnet50+faster-rcnn")[0].path
    assert weights_needed(plans, everything - {f"{detector}/metrics.json"} | explained) == {
        start.path
    }
