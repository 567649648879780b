"""The order of images and samples of detection, whatever stops, workers and processes there are."""

import copy
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from attention_ablation.base.errors import UserError
from attention_ablation.base.signals import STOPS
from attention_ablation.datasets.reading.boxes import SceneSet
from attention_ablation.feed.order import Part
from attention_ablation.runs.folder import WEIGHTS, steps_saved
from attention_ablation.study.expand import Plan
from attention_ablation.training import detect
from attention_ablation.training.detect import Detection
from attention_ablation.training.loop import Loop, Stopped
from attention_ablation.training.processes import Processes
from attention_ablation.training.run import seed_everything, train
from tests.launched import Scale
from tests.machines import ONE_CPU, in_one
from tests.small_detection import CPU, alone, detection_plan, task
from tests.test_processes import Launch, place


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(project)
    return detection_plan(project)


class _Interrupted(Exception):  # noqa: N818
    pass


def test_an_interrupted_run_ends_as_one_that_never_was(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone(plan, "table6", "resnet18+faster-rcnn")
    first, second = (tmp_path / name for name in "ab")
    first.mkdir()
    second.mkdir()
    expected = train(run, first, in_one(plan.data_folder), ONE_CPU)
    plain, calls = Detection.loss, []

    def interrupted(self: Detection, batch: object) -> object:
        calls.append(1)
        if len(calls) == 6:  # in the second epoch
            raise _Interrupted
        return plain(self, batch)

    monkeypatch.setattr(Detection, "loss", interrupted)
    with pytest.raises(_Interrupted):
        train(run, second, in_one(plan.data_folder), ONE_CPU)
    assert steps_saved(second) == 4
    found = train(run, second, in_one(plan.data_folder), ONE_CPU)
    assert len(calls) == 6 + 4
    for name in ("train_loss", "validation_map", "weights_sha256"):
        assert found[name] == expected[name], name


def test_a_signal_stops_an_evaluation_which_is_then_made_again(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone(plan, "table6", "resnet18+faster-rcnn")
    first, second = (tmp_path / name for name in "ab")
    first.mkdir()
    second.mkdir()
    monkeypatch.setattr(detect, "EVALUATION_BATCH", 2)
    expected = train(run, first, in_one(plan.data_folder), ONE_CPU)
    plain, read = SceneSet.__getitem__, []

    def interrupted(images: SceneSet, index: int) -> object:
        if len(images) == 8:  # the validation set
            read.append(index)
            if len(read) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        return plain(images, index)

    with monkeypatch.context() as patched:
        patched.setattr(SceneSet, "__getitem__", interrupted)
        with pytest.raises(SystemExit):
            train(run, second, in_one(plan.data_folder), ONE_CPU)
    assert len(read) == 2  # a batch
    assert steps_saved(second) == run.spec.recipe.steps
    found = train(run, second, in_one(plan.data_folder), ONE_CPU)
    for name in ("train_loss", "validation_map", "weights_sha256"):
        assert found[name] == expected[name], name


def test_the_order_goes_through_all_images_and_on_where_an_epoch_ends(plan: Plan) -> None:
    run = alone(plan, "table7", "mobilenet+ssd")
    recipe = run.spec.recipe.model_copy(update={"steps_per_epoch": 3})
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"recipe": recipe})})
    whole = task(plan, run)
    assert whole.steps_per_epoch == 3
    # Four steps are a pass through the 16 images, which three steps an epoch are not.
    indices = list(whole.part.keys(16, range(8)))
    for turn in (0, 1):
        seen = [at for step in indices[4 * turn : 4 * turn + 4] for at in step]
        assert {number for number, _ in seen} == {turn + 1}
        assert sorted(index for _, index in seen) == list(range(16))
    assert indices[:4] != [[(1, i) for _, i in step] for step in indices[4:]]
    images = [image for image, _ in whole.batches(2)]
    later = [image for image, _ in whole.batches(2, first=1)]
    assert len(images) == 3
    assert torch.equal(torch.stack(images[1]), torch.stack(later[0]))
    for rank in range(2):
        (mine,) = Part(recipe, run.seed, rank, 2).keys(16, range(5, 6))
        assert mine == indices[5][2 * rank :][:2]


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
    assert single.validate(lambda: None)["map_50"] == pytest.approx(
        metrics["validation_map_50"], abs=0.5
    )


def test_without_batchnorm_two_processes_train_ssd_as_one_does(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = alone(plan, "table7", "mobilenet+ssd")
    spec = place(run, tmp_path)
    Launch(spec, plan.data_folder, NO_NORM="1").output()
    monkeypatch.setattr(nn, "BatchNorm2d", Scale)
    (tmp_path / "one").mkdir()
    train(run, tmp_path / "one", in_one(plan.data_folder), ONE_CPU)
    one, two = (pd.read_csv(folder / "history.csv") for folder in (tmp_path / "one", spec.parent))
    losses = [column for column in one if "loss" in column]
    assert len(losses) == 3
    assert two[losses].to_numpy() == pytest.approx(one[losses].to_numpy(), rel=1e-4)
    expected = torch.load(tmp_path / "one" / WEIGHTS, weights_only=True)
    for name, value in torch.load(spec.parent / WEIGHTS, weights_only=True).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


def test_processes_share_the_validation_images(plan: Plan) -> None:
    detection = task(plan, alone(plan, "table7", "mobilenet+ssd"))
    scenes = detection.data.validation
    parts: list[int] = []

    def perfect(part: range, _: object) -> list[object]:
        parts.extend(part)
        return [({**scenes[i][1], "scores": torch.ones(len(scenes[i][1]["labels"]))}, scenes[i][1])
                for i in part]  # fmt: skip

    detection.detect = perfect
    for rank in range(3):
        detection.processes = Processes(rank, 3)
        detection.processes.gather = lambda found: found
        detection.validate(lambda: None)
    assert sorted(parts) == list(range(8))


def test_a_detector_stopped_within_an_epoch_samples_the_same(plan: Plan) -> None:
    run = alone(plan, "table6", "resnet18+faster-rcnn")

    def loop() -> Loop:
        seed_everything(run.seed, CPU)
        return Loop(task(plan, run))

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
    detection.source._reader.workers = 1
    batches = detection.batches(1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    for number in STOPS:
        os.kill(worker.pid, number)
    assert len(list(batches)) == detection.steps_per_epoch - 1
    detection.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_fails_is_named_without_a_traceback(
    plan: Plan, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    detection = task(plan, alone(plan, "table7", "mobilenet+ssd"))
    detection.source._reader.workers = workers

    def broken(images: SceneSet, index: int) -> object:
        raise UserError("a.jpg: expected an image that decodes.")

    monkeypatch.setattr(SceneSet, "__getitem__", broken)
    with pytest.raises(UserError, match=r"^a\.jpg: expected an image that decodes\.$"):
        list(detection.batches(1))
    with pytest.raises(UserError, match=r"^a\.jpg: expected an image that decodes\.$"):
        detection.detect(range(8))
    detection.close()


def test_an_evaluation_reads_by_the_workers_in_the_same_order(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "EVALUATION_BATCH", 3)
    detection = task(plan, alone(plan, "table7", "mobilenet+ssd"))
    scenes = detection.data.validation
    expected = detection.detect(range(1, 8))
    detection.source.close()
    detection.source._reader.workers = 1
    plain, here = SceneSet.__getitem__, os.getpid()

    def in_a_worker(images: SceneSet, index: int) -> object:
        assert os.getpid() != here
        return plain(images, index)

    monkeypatch.setattr(SceneSet, "__getitem__", in_a_worker)
    found = detection.detect(range(1, 8))
    detection.close()
    monkeypatch.undo()
    for i, one, other in zip(range(1, 8), found, expected, strict=True):
        for name, values in one[0].items():
            assert torch.equal(values, other[0][name])
        for name, values in one[1].items():
            assert torch.equal(values, scenes[i][1][name])
            assert values.untyped_storage().nbytes() == values.nbytes  # not the whole batch's
