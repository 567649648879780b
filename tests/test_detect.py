"""Detection trained for a few steps: each detector, its start, its numbers, the DAG."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attention_ablation.base.errors import UserError
from attention_ablation.figures.detections import read_detections
from attention_ablation.runs.folder import BACKBONE, DETECTIONS, WEIGHTS
from attention_ablation.runs.records import Metrics, read_sealed
from attention_ablation.runs.verify import check_run
from attention_ablation.spec.spec import DetectionSpec
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.calibrate import calibrate
from attention_ablation.training.run import train
from tests.conftest import write_yaml
from tests.machines import ONE_CPU, in_one
from tests.small_detection import alone, detection_plan, folder_of, task
from tests.test_workflow import snakemake


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(project)
    return detection_plan(project)


@pytest.mark.parametrize(
    ("table", "key", "parts", "metrics"),
    [
        (
            "table6",
            "resnet18+faster-rcnn+cbam",
            ["objectness", "rpn_box_reg", "classifier", "box_reg"],
            ["map", "map_50", "map_75"],
        ),
        ("table7", "mobilenet+ssd", ["classification", "bbox_regression"], ["map_50"]),
        ("table7", "mobilenet+stairnet+se", ["classification", "bbox_regression"], ["map_50"]),
    ],
)
def test_a_run_has_losses_by_part_and_its_average_precision(
    plan: Plan, table: str, key: str, parts: list[str], metrics: list[str]
) -> None:
    run = alone(plan, table, key)
    folder = folder_of(plan, run)
    found = train(run, folder, in_one(plan.data_folder), ONE_CPU)
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    columns = [f"train_loss_{part}" for part in parts]
    assert np.allclose(history[columns].sum(axis=1), history["train_loss"], atol=1e-4)
    for name in metrics:
        # Evaluated every other epoch.
        assert history[f"validation_{name}"].isna().tolist() == [True, False]
        assert 0 <= found[f"validation_{name}"] <= 100
    assert [c for c in map(str, history) if c.startswith("validation_")] == [
        f"validation_{name}" for name in found_order(found)
    ]
    assert found["status"] == "completed"
    assert found["dataset_composed_with"].startswith("numpy ")
    with np.load(folder / DETECTIONS) as kept:
        assert kept["classes"].tolist() == [str(digit) for digit in range(10)]
        size = run.spec.recipe.dataset.image_size
        assert kept["image_0"].shape == (3, size, size)
        assert kept["true_boxes_0"].shape[1] == kept["found_boxes_5"].shape[1] == 4
        others = {name: values for name, values in kept.items() if name != "found_boxes_1"}
    recorded = Metrics.model_validate(found)
    assert read_sealed(folder / DETECTIONS, recorded.detections_sha256)
    np.savez(folder / DETECTIONS, **others)
    findings = [finding.text for finding in check_run(folder, weights=True)]
    assert "detections.npz has not the digest that was recorded" in findings
    assert read_detections(folder) is None  # and no figure draws it


def found_order(metrics: dict[str, object]) -> list[str]:
    names = [name.removeprefix("validation_") for name in metrics if name.startswith("validation_")]
    assert names
    return names


def test_a_backbone_starts_from_the_run_before_it_and_says_where_that_is_missing(
    plan: Plan,
) -> None:
    (run,) = plan.row_runs("table6", "resnet18+faster-rcnn+cbam")
    assert run.initial
    with pytest.raises(UserError, match=r"backbone\.pt: there are no weights to start .* train"):
        task(plan, run)
    first = folder_of(plan, run.initial)
    (first / BACKBONE).write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"backbone\.pt: expected tensors saved by torch\.save"):
        task(plan, run)
    torch.save([1], first / BACKBONE)
    with pytest.raises(UserError, match=r"backbone\.pt: expected a network's state"):
        task(plan, run)
    train(run.initial, first, in_one(plan.data_folder), ONE_CPU)
    (first / WEIGHTS).rename(first / BACKBONE)
    model = task(plan, run).model
    theirs = torch.load(first / BACKBONE, weights_only=True)
    ours = model.state_dict()
    gate = "layer4.1.gate.0.attention.mlp.0.weight"
    for name in ("conv1.weight", "layer3.0.conv2.weight", gate):
        named = [key for key in ours if f".{key}".endswith(f".{name}")]
        assert any(torch.equal(ours[key], theirs[name]) for key in named), name
    assert not any("fc." in name for name in model.state_dict())


def test_the_metric_is_the_recipes(plan: Plan) -> None:
    run = alone(plan, "table7", "mobilenet+ssd")
    detection = task(plan, run)
    scenes = detection.data.validation

    def perfect(part: range, _: object) -> list[object]:
        return [
            (
                {
                    "boxes": scenes[i][1]["boxes"],
                    "labels": scenes[i][1]["labels"],
                    "scores": torch.ones(len(scenes[i][1]["labels"])),
                },
                scenes[i][1],
            )
            for i in part
        ]

    detection.detect = perfect
    assert detection.validate(lambda: None) == {"map_50": 100}
    coco = run.spec.recipe.model_copy(update={"metric": "coco"})
    detection.recipe = coco
    assert detection.validate(lambda: None) == {"map": 100, "map_50": 100, "map_75": 100}


def test_a_detector_is_calibrated_on_images_of_its_size(plan: Plan) -> None:
    spec = plan.specs["table7", "mobilenet+ssd"]
    assert isinstance(spec, DetectionSpec)
    path = calibrate([spec], plan.calibration_folder, ONE_CPU)
    (measured,) = json.loads(path.read_text())["measured"].values()
    assert measured["network"] == "mobilenet ssd none"
    assert math.isfinite(measured["images_per_second"])
    assert measured["images_per_second"] > 0


def test_asking_for_detection_trains_what_it_starts_from_once(plan: Plan) -> None:
    assert len(plan.runs) == 7  # MobileNet of Table 5 serves both of Table 7
    config = {"study": "cbam", "tier": "tiny", "results": "my results"}
    write_yaml(Path("config.yaml"), config)
    plan = load_plan(config)
    done = snakemake(Path.cwd())
    assert done.returncode == 0, done.stdout
    runs = pd.read_csv(plan.folder / "runs.csv")
    assert runs["status"].tolist() == ["completed"] * 7
    assert runs["verified"].tolist() == ["yes"] * 7
    started_from = {path.parent.parent.name for path in plan.runs_folder.glob(f"*/*/{BACKBONE}")}
    assert started_from == {run.initial.spec.run_id for run in plan.runs.values() if run.initial}
    frame = pd.read_csv(plan.folder / "tables/table7.csv")
    assert list(frame) == (
        [
            "row",
            "label",
            "backbone",
            "detector",
            "attention",
            "seeds",
            "params_m",
            "params_m_paper",
            "map_50",
            "map_50_sd",
            "map_50_paper",
        ]
    )
    assert frame["params_m"].tolist() == [5.813536, 5.994704]
    assert frame["map_50"].between(0, 100).all()
    frame = pd.read_csv(plan.folder / "tables/table6.csv")
    assert list(frame)[8:] == [
        "map_50",
        "map_50_sd",
        "map_50_paper",
        "map_75",
        "map_75_sd",
        "map_75_paper",
        "map",
        "map_sd",
        "map_paper",
    ]
    assert frame["map_paper"].tolist()[1] == 28.1
    assert (plan.folder / "figures/detections.svg").stat().st_size > 10_000
    assert "mAP@.5 (%)" in (plan.folder / "report.html").read_text()
    detector = next(run for run in plan.runs.values() if run.initial)
    assert detector.initial
    before = [finding.text for finding in check_run(plan.runs_folder / detector.path)]
    assert not any("other weights" in text for text in before)
    path = plan.runs_folder / detector.initial.path / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights_sha256": "another"}))
    texts = [finding.text for finding in check_run(plan.runs_folder / detector.path)]
    assert f"it started from other weights than {detector.initial.path} has now" in texts
