"""Detection trained for a few steps: each detector, its start, its order, its numbers, the DAG."""

import copy
import json
import math
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attention_ablation.data.detection import SceneSet
from attention_ablation.study.config import Config
from attention_ablation.study.errors import UserError
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.runs import BACKBONE, DETECTIONS, WEIGHTS, steps_saved
from attention_ablation.study.spec import DetectionSpec, Run
from attention_ablation.study.verify import check_run
from attention_ablation.training.calibrate import calibrate
from attention_ablation.training.detect import Detection
from attention_ablation.training.loop import Loop, Stopped
from attention_ablation.training.processes import Processes
from attention_ablation.training.run import settle, train
from tests.conftest import shrink_study
from tests.test_processes import Launch, place
from tests.test_workflow import snakemake

CPU = torch.device("cpu")
ROWS = """table,label,backbone,detector,attention,params_m,map_50,map_75,map
table5,MobileNet,mobilenet,,none,4.23,,,
table6,ResNet18,resnet18,faster-rcnn,none,,,,
table6,ResNet18 + CBAM,resnet18,faster-rcnn,cbam,,48.2,29.2,28.1
table7,MobileNet SSD,mobilenet,ssd,none,5.81,68.1,,
table7,MobileNet StairNet + SE,mobilenet,stairnet,se,5.99,70.0,,
"""
FIGURES = {
    "detections": {
        "kind": "detections", "title": "Boxes", "section": "4.4", "table": "table6",
        "rows": ["resnet18+faster-rcnn", "resnet18+faster-rcnn+cbam"],
    }
}  # fmt: skip


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A row or two of each detector, which train for eight steps."""
    monkeypatch.chdir(project)
    shrink_study(project, ROWS, FIGURES)
    return load_plan(Config(study="cbam", tier="tiny"))


def alone(plan: Plan, table: str, key: str) -> Run:
    """A row's run, from random weights."""
    (run,) = plan.row_runs(table, key)
    return run.model_copy(update={"spec": run.spec.model_copy(update={"initial": None})})


def task(plan: Plan, run: Run) -> Detection:
    material = Detection.load(run, plan.runs_folder / run.path, plan.data_folder, None)
    return Detection(run, material, CPU)


def folder_of(plan: Plan, run: Run) -> Path:
    folder = plan.runs_folder / run.path
    folder.mkdir(parents=True)
    return folder


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
    found = train(run, folder, plan.data_folder, CPU)
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


def found_order(metrics: dict[str, object]) -> list[str]:
    names = [name.removeprefix("validation_") for name in metrics if name.startswith("validation_")]
    assert names
    return names


class _Interrupted(Exception):  # noqa: N818
    pass


def test_an_interrupted_run_ends_as_one_that_never_was(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone(plan, "table6", "resnet18+faster-rcnn")
    first, second = (tmp_path / name for name in "ab")
    first.mkdir()
    second.mkdir()
    expected = train(run, first, plan.data_folder, CPU)
    plain, calls = Detection.loss, []

    def interrupted(self: Detection, batch: object) -> object:
        calls.append(1)
        if len(calls) == 6:  # in the second epoch
            raise _Interrupted
        return plain(self, batch)

    monkeypatch.setattr(Detection, "loss", interrupted)
    with pytest.raises(_Interrupted):
        train(run, second, plan.data_folder, CPU)
    assert steps_saved(second) == 4
    found = train(run, second, plan.data_folder, CPU)
    assert len(calls) == 6 + 4
    for name in ("train_loss", "validation_map", "weights_sha256"):
        assert found[name] == expected[name], name


def test_the_order_goes_through_all_images_and_on_where_an_epoch_ends(plan: Plan) -> None:
    run = alone(plan, "table7", "mobilenet+ssd")
    recipe = run.spec.recipe.model_copy(update={"steps_per_epoch": 3})
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"recipe": recipe})})
    whole = task(plan, run)
    assert whole.steps_per_epoch == 3
    # Four steps are a pass through the 16 images, which three steps an epoch are not.
    indices = [whole._indices(step) for step in range(8)]
    for turn in (0, 1):
        seen = [at for step in indices[4 * turn : 4 * turn + 4] for at in step]
        assert {number for number, _ in seen} == {turn}
        assert sorted(index for _, index in seen) == list(range(16))
    assert indices[:4] != [[(0, i) for _, i in step] for step in indices[4:]]
    images = [image for image, _ in whole.batches(2)]
    later = [image for image, _ in whole.batches(2, first=1)]
    assert len(images) == 3
    assert torch.equal(torch.stack(images[1]), torch.stack(later[0]))
    for rank in range(2):
        whole.processes, whole.share = Processes(rank, 2), 2
        assert whole._indices(5) == indices[5][2 * rank :][:2]


def test_a_backbone_starts_from_the_run_before_it_and_says_where_that_is_missing(
    plan: Plan,
) -> None:
    (run,) = plan.row_runs("table6", "resnet18+faster-rcnn+cbam")
    assert run.initial
    with pytest.raises(UserError, match=r"backbone\.pt: there are no weights to start .* train"):
        task(plan, run)
    first = folder_of(plan, run.initial)
    train(run.initial, first, plan.data_folder, CPU)
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

    def perfect(part: range) -> list[object]:
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
    assert detection.validate() == {"map_50": 100}
    coco = run.spec.recipe.model_copy(update={"metric": "coco"})
    detection.recipe = coco
    assert detection.validate() == {"map": 100, "map_50": 100, "map_75": 100}


def test_two_processes_train_a_detector_together(plan: Plan, tmp_path: Path) -> None:
    run = alone(plan, "table6", "resnet18+faster-rcnn+cbam")
    spec = place(run, tmp_path)
    text = Launch(spec, plan.data_folder).output()
    assert text.count("epoch 2/2") == 1  # one of them prints
    metrics = json.loads((spec.parent / "metrics.json").read_text())
    assert (metrics["status"], metrics["processes"]) == ("completed", 2)
    single = task(plan, run)
    before = {name: p.clone() for name, p in single.model.named_parameters() if p.requires_grad}
    single.model.load_state_dict(torch.load(spec.parent / WEIGHTS, weights_only=True))
    after = dict(single.model.named_parameters())
    assert all(after[name].isfinite().all() for name in before)
    assert sum(torch.equal(value, after[name]) for name, value in before.items()) < 3
    assert single.validate()["map_50"] == pytest.approx(metrics["validation_map_50"], abs=0.5)


def test_processes_share_the_validation_images(plan: Plan) -> None:
    detection = task(plan, alone(plan, "table7", "mobilenet+ssd"))
    scenes = detection.data.validation
    parts: list[int] = []

    def perfect(part: range) -> list[object]:
        parts.extend(part)
        return [({**scenes[i][1], "scores": torch.ones(len(scenes[i][1]["labels"]))}, scenes[i][1])
                for i in part]  # fmt: skip

    detection.detect = perfect
    for rank in range(3):
        detection.processes = Processes(rank, 3)
        detection.processes.gather = lambda found: found
        detection.validate()
    assert sorted(parts) == list(range(8))


def test_a_detector_stopped_within_an_epoch_samples_the_same(plan: Plan) -> None:
    run = alone(plan, "table6", "resnet18+faster-rcnn")

    def loop() -> Loop:
        settle(run.seed, CPU)
        return Loop(task(plan, run), CPU)

    whole = loop()
    rows = [whole.epoch() for _ in range(2)]
    first, asked = loop(), iter([False, False, True])
    with pytest.raises(Stopped):
        first.epoch(lambda: next(asked))
    state = copy.deepcopy(first.state_dict())
    second = loop()
    second.load_state_dict(state)
    assert second.step == 2
    again = [second.epoch() for _ in range(2)]
    assert [row["train_loss"] for row in again] == [row["train_loss"] for row in rows]
    theirs = whole.task.model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in second.task.model.state_dict().items())


def test_a_signal_to_all_processes_leaves_the_workers_to_the_main_one(plan: Plan) -> None:
    detection = task(plan, alone(plan, "table7", "mobilenet+ssd"))
    detection.workers = 1
    batches = detection.batches(1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(worker.pid, number)
    assert len(list(batches)) == detection.steps_per_epoch - 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_fails_is_named_without_a_traceback(
    plan: Plan, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    detection = task(plan, alone(plan, "table7", "mobilenet+ssd"))
    detection.workers = workers

    def broken(images: SceneSet, index: int) -> object:
        raise UserError("a.jpg: expected an image that decodes.")

    monkeypatch.setattr(SceneSet, "__getitem__", broken)
    with pytest.raises(UserError, match=r"^a\.jpg: expected an image that decodes\.$"):
        list(detection.batches(1))


def test_a_detector_is_calibrated_on_images_of_its_size(plan: Plan) -> None:
    spec = plan.specs["table7", "mobilenet+ssd"]
    assert isinstance(spec, DetectionSpec)
    path = calibrate([spec], plan.calibration_folder, CPU)
    (measured,) = json.loads(path.read_text())["measured"].values()
    assert measured["network"] == "mobilenet ssd none"
    assert math.isfinite(measured["images_per_second"])
    assert measured["images_per_second"] > 0


def test_asking_for_detection_trains_what_it_starts_from_once(plan: Plan) -> None:
    assert len(plan.runs) == 7  # MobileNet of Table 5 serves both of Table 7
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
