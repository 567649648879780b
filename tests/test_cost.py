"""What a plan says it costs, against sums done by hand; budgets; calibration; status."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import write_json
from attention_ablation.cli.main import main
from attention_ablation.cost.bill import describe, describe_runs, over_budget
from attention_ablation.cost.cost import Cost, load_cost
from attention_ablation.cost.rates import (
    Calibration,
    Measured,
    PublishedRates,
    fastest,
    network_key,
)
from attention_ablation.runs.folder import read_outcome
from attention_ablation.runs.lock import lock_run
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.calibrate import calibrate
from tests.conftest import ROOT
from tests.machines import ONE_CPU
from tests.run_folders import finished
from tests.test_workflow import snakemake


def plan_of(**keys: object) -> Plan:
    return load_plan(Config(**{"study": "cbam", "tier": "imagenet", **keys}), ROOT)


def rates(plan: Plan, rate: float) -> Calibration:
    """A calibration that gives every network the same rate."""
    measured = {
        network_key(spec): Measured(network="any", images_per_second=rate)
        for spec in plan.specs.values()
    }
    return Calibration(title="a device", unit="GPU-hours", measured=measured)


def test_hours_of_a_run_are_images_over_its_rate(tmp_path: Path) -> None:
    plan = plan_of(results=str(tmp_path))
    spec = plan.specs["table4", "resnet50"]
    cost = load_cost(plan)
    # 90 epochs of 5,004 full batches, and 50,000 images at three times the speed, at 938 a second.
    assert cost.hours(spec) == pytest.approx(90 * (5004 * 256 + 50_000 / 3) / 938 / 3600)
    assert cost.hours(plan.specs["table4", "resnet50+se"]) == pytest.approx(
        1.349 * cost.hours(spec)
    )
    assert cost.hours(plan.specs["table4", "resnet50+cbam"]) == pytest.approx(
        2.169 * cost.hours(spec)
    )
    assert 60 * cost.hours(spec) < cost.minutes(spec) < 120 * cost.hours(spec)


def test_shared_runs_are_counted_once_and_with_the_first_table(tmp_path: Path) -> None:
    plan = plan_of(results=str(tmp_path), tables=["table1", "table3"])
    text = describe(Cost(plan, rates(plan, 90 * (5004 * 256 + 50_000 / 3) / 3600)), 1, price=2.5)
    lines = [line.split() for line in text.splitlines() if line.startswith(("table", "all"))]
    # An hour a run; Table 3 shows Table 1's SE, and no other row of it.
    assert lines[1:] == [
        ["table1", "5", "5", "0", "5.0", "5.0"],
        ["table3", "4", "4", "1", "4.0", "3.0"],
        ["all", "9", "8", "8.0"],
    ]
    assert "GPU-hours: 8.0." in text
    assert "Wall time on 1 device, one run on each: 8.0 hours." in text
    assert "Cost at 2.5 for each of the GPU-hours: 20" in text


def test_wall_time_is_that_of_the_workflows_order(tmp_path: Path) -> None:
    plan = plan_of(results=str(tmp_path), tables=["table5"])
    cost = Cost(plan, rates(plan, 1.0))
    # The longest first: CBAM, SE, plain; each of MobileNet and of its 0.7, which cost alike.
    hours = {"channel+spatial": 5.0, "se": 3.0, "none": 2.0}
    vars(cost)["run_hours"] = {
        path: next(h for gate, h in hours.items() if f"_{gate}" in path) for path in plan.runs
    }
    assert cost.makespan(1) == 20.0
    assert cost.makespan(2) == 10.0  # 5 3 2 and 5 3 2
    assert cost.makespan(3) == 7.0  # 5 2, 5 2, 3 3: one of the last two goes to the third
    assert cost.makespan(9) == 5.0


def test_deeper_networks_and_more_gates_are_started_first() -> None:
    plan = plan_of(tier="quick", tables=["table4"])
    cost = load_cost(plan)
    names = ["resnext101+cbam", "resnet101+cbam", "resnet50+cbam", "resnet50+se", "resnet50"]
    costs = [cost.urgency[plan.row_runs("table4", name)[0].path] for name in names]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == cost.hours(plan.specs["table4", "resnext101+cbam"])  # one model of both


def test_the_first_table_is_trained_first_with_what_its_detectors_start_from() -> None:
    plan = plan_of(tier="quick", tables=["table7", "table4"])
    cost = load_cost(plan)
    shown = {run.path for run in plan.table_runs("table7")}
    first = shown | {run.initial.path for run in plan.table_runs("table7") if run.initial}
    assert len(first) > len(shown)
    assert set(cost.order[: len(first)]) == first
    rest = [cost.urgency[path] for path in cost.order[len(first) :]]
    assert rest == sorted(rest, reverse=True)
    assert sorted(plan.runs, key=lambda path: -cost.priority[path]) == cost.order


def test_what_a_detector_starts_from_is_trained_before_it() -> None:
    plan = plan_of(tier="quick", tables=["table1", "table4", "table7"])
    cost = load_cost(plan)
    order = cost.order

    def seconds(path: str) -> float:
        spec = plan.runs[path].spec
        return spec.recipe.steps * spec.recipe.batch_size / fastest(spec)

    cheapest = min(plan.runs, key=seconds)
    assert cheapest.startswith("vgg16_none")
    others = {run.path for run in plan.table_runs("table1")}
    classified = {run.path for run in plan.table_runs("table4")} - others
    assert order.index(cheapest) < min(map(order.index, classified))
    for path, run in plan.runs.items():
        assert run.initial is None or order.index(run.initial.path) < order.index(path)


def test_runs_without_a_rate_are_ordered_by_their_launches(tmp_path: Path) -> None:
    plan = plan_of(tier="voc", results=str(tmp_path))
    cost = load_cost(plan)
    assert {run.path for run in plan.table_runs("table7")} <= set(cost.unknown)
    first, detector = (
        next(path for path in plan.runs if path.startswith(name))
        for name in ("vgg16_none", "vgg16_stairnet_none")
    )
    spec = plan.runs[detector].spec
    least = spec.recipe.steps * spec.recipe.batch_size / fastest(spec) / 3600
    assert cost.run_hours[detector] == 0
    assert least < cost.urgency[detector] < 1.1 * least
    assert cost.urgency[first] > cost.urgency[detector]


def test_what_is_done_is_not_left(tmp_path: Path) -> None:
    plan = plan_of(results=str(tmp_path), tables=["table1"])
    cost = Cost(plan, rates(plan, 90 * (5004 * 256 + 50_000 / 3) / 3600))
    done, half, *_ = (plan.runs_folder / path for path in plan.runs)
    for folder in (done, half):
        folder.mkdir(parents=True)
    finished(plan, next(iter(plan.runs.values())), 30.0)
    (half / f"checkpoint-{90 * 5004 // 2:09d}-0123456789abcdef.pt").touch()
    assert sum(cost.left_hours.values()) == pytest.approx(3.5)
    assert "GPU-hours: 5.0 (3.5 left)." in describe(cost, 1)
    assert [read_outcome(plan.runs_folder / path).status for path in plan.runs][:3] == [
        "completed", "interrupted", "missing",
    ]  # fmt: skip


@pytest.mark.parametrize(("budget", "refused"), [(4.9, True), (5.1, False), (None, False)])
def test_a_budget_refuses_what_is_above_it(
    budget: float | None, refused: bool, tmp_path: Path
) -> None:
    plan = plan_of(results=str(tmp_path), tables=["table1"], budget=budget)
    cost = Cost(plan, rates(plan, 90 * (5004 * 256 + 50_000 / 3) / 3600))
    assert bool(over_budget(cost)) is refused


def test_a_budget_stops_a_workflow_with_the_plan_and_before_any_job(project: Path) -> None:
    done = snakemake(project, "--config", "budget=1.0e-7")
    assert done.returncode != 0
    assert "GPU-hours alone" in done.stdout
    assert "the budget in config.yaml is 1e-07" in done.stdout
    assert not list(project.glob("results/**/spec.json"))


def test_a_network_without_a_rate_is_named_and_stops_a_budget(tmp_path: Path) -> None:
    plan = plan_of(results=str(tmp_path), tables=["table1"], budget=1e9)
    calibration = rates(plan, 100.0)
    key = network_key(plan.specs["table1", "resnet50+se"])
    calibration.measured[key] = Measured(network="se", images_per_second=None)
    cost = Cost(plan, calibration)
    text = describe(cost, 4)
    assert "GPU-hours: at least" in text
    assert "no rate is known of 1 runs, or they did not fit: resnet50_se." in text
    assert re.search(r"table1 .* at least \d", text)
    assert "not known" in describe_runs(cost)
    assert "the rate of 1 runs is not known" in str(over_budget(cost))
    assert cost.minutes(plan.specs["table1", "resnet50+se"]) == 24 * 60


def test_every_published_rate_names_its_source_and_every_backbone_planned_has_one(
    tmp_path: Path,
) -> None:
    plan = plan_of(results=str(tmp_path))
    cost = load_cost(plan)
    assert not cost.unknown
    assert isinstance(cost.rates, PublishedRates)
    published = cost.rates.table
    for entries in (published.hardware, published.backbones, published.gates):
        assert all(entry.source for entry in entries.values())
    text = describe(cost, 8)
    # Other networks have none where none is published.
    planned = {spec.backbone.name for spec in plan.specs.values()}
    assert planned <= set(published.backbones)
    assert all(f"{name} at" in text for name in planned - {"resnet50"})


def test_sources_and_assumptions_are_those_of_the_plans_runs(tmp_path: Path) -> None:
    def said(**keys: object) -> str:
        plan = plan_of(results=str(tmp_path), **keys)
        return " ".join(describe(load_cost(plan)).partition("Estimated for:")[2].split())

    known = {"DREAL", "as long as SE", "eight times", "ratios", "pixels", "0.4 ms",
             "cbam, time", "se, time", "ResNet50: NVIDIA", "ordered by"}  # fmt: skip

    def found(text: str) -> set[str]:
        return {words for words in known if words in text}

    full = said(tables=["table1"])  # ResNet50s at full size
    gates = {"as long as SE", "ratios", "se, time", "cbam, time"}
    assert found(full) == {"ResNet50: NVIDIA", *gates}
    small = said(tables=["table4"], tier="quick")
    assert found(small) == {"ResNet50: NVIDIA", *gates, "pixels", "0.4 ms"}
    detectors = said(tables=["table7"], tier="voc")
    assert "no rate is known" in detectors
    assert found(detectors) >= {"eight times", "ordered by", "0.4 ms"}
    assert "eight times" not in small
    assert "DREAL" in said(study="zoo", tier="imagenet")


def test_hardware_and_precision_without_a_rate_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown hardware 'a1000'; did you mean 'a100'"):
        load_cost(plan_of(results=str(tmp_path), hardware="a1000"))
    with pytest.raises(UserError, match="no tf32 rate of rtx3090; valid are: bf16, fp16"):
        load_cost(plan_of(results=str(tmp_path), hardware="rtx3090"))


def test_calibration_measures_once_and_is_used(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        path = calibrate(tiny.specs.values(), tiny.calibration_folder, ONE_CPU)
        first = json.loads(path.read_text())
        assert len(capsys.readouterr().out.splitlines()) == 4
        calibrate(tiny.specs.values(), tiny.calibration_folder, ONE_CPU)
    finally:
        torch.use_deterministic_algorithms(before)
    assert capsys.readouterr().out == ""
    assert json.loads(path.read_text()) == first
    assert all(entry["images_per_second"] > 1 for entry in first["measured"].values())
    cost = load_cost(tiny)
    assert cost.rates.title == first["title"]
    assert cost.memory_mb >= first["memory_mb"]
    assert main(["plan", "--gpus", "2", "--runs"]) == 0
    out = capsys.readouterr().out
    assert first["title"] in out
    assert out.count("table3:resnet50") == 4


HOLD = """
import sys
from pathlib import Path
from attention_ablation.runs.lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_status_tells_running_failed_and_missing(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    running, failed, diverged, *_ = (tiny.runs_folder / path for path in tiny.runs)
    for folder in (running, failed, diverged):
        folder.mkdir(parents=True)
    write_json(failed / "failure.json", {"status": "failed", "reason": "OutOfMemoryError: 80 GiB"})
    (failed / "train.log").write_text("\n".join(f"line {i}" for i in range(9)))
    finished(tiny, list(tiny.runs.values())[2], 90.0, status="diverged")
    (running / "checkpoint-000000004-0123456789abcdef.pt").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, running], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout
        assert process.stdout.readline()
        assert read_outcome(running).status == "running"
        assert main(["status", "--set", "seeds=[0, 1, 2]"]) == 0
        out = capsys.readouterr().out
        process.kill()
    assert read_outcome(running).status == "interrupted"
    assert out.splitlines()[-5:-2] == ["failed:", f"  {failed}: OutOfMemoryError: 80 GiB",
                                       "    train.log: line 6"]  # fmt: skip
    assert f"{running}: 50 % of its steps saved by process {process.pid}\n" in out
    assert f"{diverged}: after epoch 2" in out
    counts = next(line.split() for line in out.splitlines() if line.startswith("table3"))
    assert counts == ["table3", "0", "1", "1", "1", "0", "0", "9"]
    with lock_run(running):
        pass


def test_detectors_wait_for_their_backbones_in_the_estimate(tmp_path: Path) -> None:
    plan = plan_of(tier="voc", results=str(tmp_path))
    calibration = rates(plan, 100.0)
    for run in plan.runs.values():  # the backbones too, which no row shows
        calibration.measured[network_key(run.spec)] = Measured(network="x", images_per_second=100.0)
    cost = Cost(plan, calibration)
    hours = cost.run_hours
    chains = [hours[p] + hours[r.initial.path] for p, r in plan.runs.items() if r.initial]
    assert cost.makespan(100) == pytest.approx(max(chains))
    assert cost.makespan(1) >= sum(hours.values()) * 0.999
    assert len(describe_runs(cost).splitlines()) == len(plan.runs) + 2
    assert "what others start from" in describe_runs(cost)
