"""A run folder that is damaged in any way costs its own cell: every verb goes on, or says why."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from attention_ablation.cli.main import main
from attention_ablation.report.collect import collect
from attention_ablation.runs.verify import check_run
from attention_ablation.study.config import Study
from attention_ablation.study.expand import Plan
from tests.conftest import plan_from, shrink_study

ROWS = """table,label,backbone,attention,params_m,gflops,top1_error,top5_error
table4,ResNet18,resnet18,none,11.69,1.814,29.60,10.55
table4,ResNet18 + SE,resnet18,se,,,,
"""
SOUND, DAMAGED = "resnet18", "resnet18+se"


@pytest.fixture
def pair(project: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two trained and explained rows, with both kinds of figures; drawing is not tested here."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    figures = {name: study.figures[name].model_dump() for name in ("figure4", "figure5")}
    panel = figures["figure4"]["panels"][0]
    figures["figure4"]["panels"] = [panel | {"table": "table4", "rows": [SOUND, DAMAGED]}]
    figures["figure5"]["rows"] = [SOUND, DAMAGED]
    shrink_study(project, ROWS, figures)
    plan = plan_from(Path("config.yaml"))
    for run in plan.runs.values():
        spec = plan.runs_folder / run.path / "spec.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(run.canonical() + "\n")
        for verb in ("train", "gradcam"):
            assert main([verb, str(spec), "--device", "cpu"]) == 0
    assert main(["render"]) == 0
    assert main(["verify"]) == 0
    return plan


def damaged_folder(plan: Plan) -> Path:
    return plan.runs_folder / plan.row_runs("table4", DAMAGED)[0].path


READING = [
    ["where", "table4", DAMAGED, "top1_error"],
    ["where", "table4", DAMAGED, "top1_error", "--format", "json"],
    ["verify"],
    ["status"],
    ["plan"],
]
WRITING = ("train", "gradcam")  # what they can again
DRAWN = [["render", "figure4"], ["render", "figure5"], ["render", "runs", "table4", "report"]]


# Values by which any other may be replaced. Trainings here flush subnormal numbers to 0.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)
JSON = ("metrics.json", "result.json", "gradcam.json", "spec.json", "failure.json")
FILES = (*JSON, "history.csv", "gradcam.csv", "gradcam.npz")


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, str, Any]]:
    """Return what is done to some files of a folder: file, what, and by what."""
    found = []
    for name in draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=3, unique=True)):
        kinds = ["cut", "bytes", "folder", "gone", *["value", "drop", "add"] * (name in JSON)]
        what = draw(st.sampled_from(kinds))
        by = {
            "cut": st.floats(0, 1, allow_subnormal=False),
            "bytes": st.binary(max_size=20),
            "value": st.tuples(st.integers(0, 99), VALUES),
            "drop": st.integers(0, 99),
            "add": st.tuples(
                st.sampled_from(["rows", "seed", "reason", "train_x", "history"])
                | st.text(max_size=5),
                VALUES,
            ),
        }
        found.append((name, what, draw(by.get(what, st.none()))))
    return found


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in JSON data, as what holds it and its key."""
    pairs = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data if isinstance(data, list) else [])
    )
    for key, value in list(pairs):
        yield data, key
        yield from places(value)


def damage(path: Path, what: str, by: Any) -> None:
    if what in ("folder", "gone"):
        path.unlink(missing_ok=True)
        if what == "folder":
            path.mkdir()
        return
    content = path.read_bytes() if path.exists() else b"{}"
    if what == "cut":
        path.write_bytes(content[: int(by * len(content))])
    elif what == "bytes":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + by + content[middle + len(by) :])
    else:
        data = json.loads(content)
        where = list(places(data)) or [(data, "status")]
        if what == "add":
            data[by[0]] = by[1]
        else:
            holder, key = where[(by if what == "drop" else by[0]) % len(where)]
            if what == "drop":
                holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
            else:
                holder[key] = by[1]
        path.write_text(json.dumps(data), "utf-8")


def test_whatever_is_damaged_every_verb_ends_with_an_answer(
    pair: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pristine = damaged_folder(pair), tmp_path / "pristine"
    shutil.copytree(folder, pristine)
    sound, path = pair.row_runs("table4", SOUND)[0].path, folder / "spec.json"
    before = collect(pair).loc[sound].dropna()

    @settings(max_examples=int(os.environ.get("DAMAGES", "20")), database=None)
    @given(damages(), st.sampled_from(DRAWN))
    def damaged(done: list[tuple[str, str, Any]], render: list[str]) -> None:
        shutil.rmtree(folder)
        shutil.copytree(pristine, folder)
        for name, what, by in done:
            damage(folder / name, what, by)
        for verb in (render, *READING):
            assert main(verb) in (0, 1, 2), verb
        assert collect(pair).loc[sound].dropna().equals(before)
        codes = [main([verb, str(path), "--device", "cpu"]) for verb in WRITING]
        assert set(codes) <= {0, 2}
        if codes == [0, 0]:
            assert not [f for f in check_run(folder, weights=True) if f.level == "wrong"]
        capsys.readouterr()

    damaged()
