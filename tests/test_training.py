"""The loop: repeatable, honest in its counts, and clear when a run diverges or fails."""

import csv
import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attention_ablation.cli.main import main
from attention_ablation.datasets.contract import load
from attention_ablation.runs.folder import read_outcome
from attention_ablation.spec.spec import Run
from attention_ablation.study.expand import Plan
from attention_ablation.training.classify import Classification
from attention_ablation.training.loop import Loop
from attention_ablation.training.run import train
from tests.machines import ONE_CPU, in_one

CPU = torch.device("cpu")
TIMES = {"seconds", "compute_seconds", "images_per_second", "compute_images_per_second"}


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def classification(run: Run, folder: Path) -> Classification:
    return Classification(run, load(run.spec.recipe.dataset, in_one(folder)), ONE_CPU)


def in_float64(run: Run, folder: Path) -> Classification:
    """A task whose rounding is far below each term of a step."""
    task = classification(run, folder)
    task.model.double().register_forward_pre_hook(lambda _, given: (given[0].double(),))
    return task


def small_run(tiny: Plan, key: str = "resnet50+cbam", **recipe: Any) -> Run:
    """A run of the tiny tier on ResNet18, with some keys of the recipe changed."""
    run = tiny.row_runs("table3", key)[0].model_dump()
    run["spec"]["backbone"]["name"] = "resnet18"
    run["spec"]["recipe"] |= recipe
    return Run.model_validate(run)


def test_the_same_spec_twice_gives_identical_numbers(tiny: Plan, tmp_path: Path) -> None:
    run = small_run(tiny)
    folders = [tmp_path / name for name in ("one", "two", "other")]
    other = run.model_copy(update={"seed": 1})
    for folder, chosen in zip(folders, (run, run, other), strict=True):
        folder.mkdir()
        torch.rand(7)  # whatever the global random state is
        train(chosen, folder, in_one(tmp_path / "data"), ONE_CPU)
    one, two, different = map(history, folders)
    assert one == two
    assert one != different
    assert len(one) == 2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_gives_nearly_the_same_losses(
    tiny: Plan, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**8)  # one that fits at once
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    losses, moved = [], []
    for chosen in ("fp32", precision):
        run = small_run(tiny, precision=chosen, learning_rate=0.001, epochs=1)
        found = train(run, tmp_path, in_one(tmp_path / "data"), ONE_CPU)
        losses.append([found["train_loss"], found["validation_loss"]])
        weights = torch.load(tmp_path / "weights.pt", weights_only=True)
        first = classification(run, tmp_path / "data").model.named_parameters()
        moved.append(torch.cat([(weights[k] - v.detach()).flatten() for k, v in first]))
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert torch.cosine_similarity(moved[0], moved[1], dim=0) > 0.9  # all four steps were made
    assert float(moved[0].norm()) == pytest.approx(float(moved[1].norm()), rel=0.5)


def test_a_first_step_that_the_scaler_leaves_out_changes_nothing(
    tiny: Plan, tmp_path: Path
) -> None:
    task = classification(small_run(tiny, precision="fp16"), tmp_path)
    loop = Loop(task)
    loop.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # overflows for some steps
    before = {name: value.clone() for name, value in task.model.named_parameters()}
    batches = task.batches(1)
    # New memory is filled with NaN, so that a buffer read before it was set shows.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    loop._step(next(batches))
    assert all(torch.equal(v, before[name]) for name, v in task.model.named_parameters())
    while loop.scaler.get_scale() > 2.0**16:
        loop.scaler.update(2.0**10)
    loop._step(next(batches))
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    assert all(value.isfinite().all() for value in task.model.parameters())
    assert not all(torch.equal(v, before[name]) for name, v in task.model.named_parameters())


def test_an_epoch_is_plain_sgd_on_every_full_batch(tiny: Plan, tmp_path: Path) -> None:
    run = small_run(tiny, epochs=1, schedule={"name": "step", "every": 30, "gamma": 0.1})
    task = in_float64(run, tmp_path)
    images = torch.cat([images for images, _ in task.batches(1)])
    assert len(images) == 64 == task.steps_per_epoch * 16  # 64 images, each once
    assert len({bytes(image.numpy().tobytes()) for image in images}) == 64
    assert not torch.equal(next(task.batches(1))[0], next(task.batches(2))[0])
    assert images[:, 0].equal(images[:, 2])  # grey as colour
    assert images.mean().item() == pytest.approx(0, abs=1e-3)
    assert images.std().item() == pytest.approx(1, abs=1e-3)

    # Momentum and weight decay written out, as in Sutskever et al. and torch's documentation.
    reference = in_float64(run, tmp_path)
    velocity: dict[str, torch.Tensor] = {}
    reference.model.train()
    for batch_images, labels in reference.batches(1):
        loss = nn.functional.cross_entropy(reference.model(batch_images), labels)
        reference.model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for name, p in reference.model.named_parameters():
                assert p.grad is not None
                step = p.grad + task.recipe.weight_decay * p
                velocity[name] = task.recipe.momentum * velocity.get(name, torch.zeros(())) + step
                p -= task.recipe.learning_rate * velocity[name]
    Loop(task).epoch()
    theirs = reference.model.state_dict()
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("spared", [{"norms"}, {"biases"}, {"norms", "biases"}, set()])
def test_norms_and_biases_need_not_decay(tiny: Plan, tmp_path: Path, spared: set[str]) -> None:
    keys = {"epochs": 1, "weight_decay": 0.5, "momentum": 0.0, "nesterov": None}
    keys |= {f"decay_{name}": False for name in spared}
    schedule = {"name": "step", "every": 30, "gamma": 0.1}
    run = small_run(tiny, "resnet50+cbam", schedule=schedule, **keys)
    task = classification(run, tmp_path)
    for parameter in task.model.parameters():
        nn.init.constant_(parameter, 1.0)
        parameter.grad = torch.zeros_like(parameter)
    Loop(task).optimizer.step()
    norms = {
        f"{name}.{kind}"
        for name, module in task.model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    biases = {name for name, _ in task.model.named_parameters() if name.endswith(".bias")} - norms
    assert len(norms) > 40
    assert len(biases) == 2 * 8 + 1  # two of each gate, and the classifier's
    kept = (norms if "norms" in spared else set()) | (biases if "biases" in spared else set())
    for name, value in task.model.named_parameters():
        share = 1 if name in kept else 1 - 0.5 * run.spec.recipe.learning_rate
        torch.testing.assert_close(value, torch.full_like(value, share))


def test_errors_are_counted_over_every_validation_image_once(tiny: Plan, tmp_path: Path) -> None:
    run = small_run(tiny)
    dataset = run.spec.recipe.dataset.model_dump() | {"validation_images": 613}  # no round batches
    task = classification(small_run(tiny, dataset=dataset), tmp_path)
    labels = task.source.validation_set.labels
    assert len(labels) == 613
    # A network whose guess is always the classes in the order 3, 1, 4, 0, 5, ...
    order = [3, 1, 4, 0, 5, 2, 6, 7, 8, 9]
    logits = torch.zeros(10)
    logits[order] = torch.arange(10, 0, -1).float()
    task.model = FixedLogits(logits)
    loss, top1, top5, images = task.evaluate().tolist()
    assert images == 613
    assert top1 == sum(label != 3 for label in labels.tolist())
    assert top5 == sum(label not in order[:5] for label in labels.tolist())
    expected = sum(-torch.log_softmax(logits, 0)[label].item() for label in labels.tolist())
    assert loss == pytest.approx(expected, rel=1e-4)


class FixedLogits(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_a_network_can_learn_the_training_images(tiny: Plan, tmp_path: Path) -> None:
    run = small_run(tiny, "resnet50+se", epochs=15, zero_init_residual=True)
    metrics = train(run, tmp_path, in_one(tmp_path / "data"), ONE_CPU)
    assert metrics["train_top1_error"] < 20  # chance is 90


def test_metrics_say_where_the_numbers_come_from(tiny: Plan, tmp_path: Path) -> None:
    metrics = train(small_run(tiny), tmp_path, in_one(tmp_path / "data"), ONE_CPU)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    last = history(tmp_path)[-1]
    for name in ("validation_top1_error", "validation_top5_error", "train_loss"):
        assert metrics[name] == float(last[name])
    assert metrics["status"] == "completed"
    assert metrics["torch"] == torch.__version__
    assert metrics["device"]
    assert 0 < metrics["compute_seconds"] <= metrics["seconds"]
    assert len(metrics["dataset_fingerprint"]) == 16


def spec_file(run: Run) -> Path:
    path = Path("results/tiny/runs", run.path, "spec.json")
    path.parent.mkdir(parents=True)
    path.write_text(run.canonical())
    return path


def test_a_diverged_run_is_a_result(tiny: Plan) -> None:
    path = spec_file(small_run(tiny, learning_rate=1e20, epochs=5))
    assert main(["train", str(path)]) == 0
    outcome = read_outcome(path.parent)
    assert outcome.status == "diverged"
    assert outcome.metrics
    assert outcome.metrics.numbers["train_loss"] is None
    assert outcome.metrics.epochs < 5
    assert "nan" in (path.parent / "history.csv").read_text()


def test_a_failed_run_leaves_its_reason(tiny: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    path = spec_file(small_run(tiny))

    def out_of_memory(*arguments: object, **keys: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    with monkeypatch.context() as patched:
        patched.setattr("attention_ablation.training.run.train", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            main(["train", str(path)])
    outcome = read_outcome(path.parent)
    assert outcome.status == "failed"
    assert str(outcome.reason).endswith("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert main(["train", str(path)]) == 0
    assert read_outcome(path.parent).status == "completed"
    assert not (path.parent / "failure.json").exists()


def test_a_finished_run_is_not_trained_again(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spec_file(small_run(tiny))
    assert main(["train", str(path)]) == 0
    outputs = [path.parent / name for name in ("metrics.json", "history.csv")]
    before = [output.read_bytes() for output in outputs]
    # Snakemake deletes outputs that it did not see completed.
    for output in outputs:
        output.unlink()
    assert main(["train", str(path)]) == 0
    assert "finished already" in capsys.readouterr().out
    assert [output.read_bytes() for output in outputs] == before


def test_a_users_mistake_is_a_sentence_and_exit_code_2(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spec_file(small_run(tiny, dataset={"name": "imagenet"}))
    assert main(["train", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("attention-ablation: results/data/imagenet: expected the folders train")
    assert "there is no such folder" in error
    assert "Traceback" not in error
    shutil.rmtree("results")
    assert main(["train", str(path)]) == 2
    assert "no such spec" in capsys.readouterr().err


def test_losses_that_are_not_finite_are_never_written_as_json(tiny: Plan, tmp_path: Path) -> None:
    metrics = train(
        small_run(tiny, learning_rate=1e20), tmp_path, in_one(tmp_path / "data"), ONE_CPU
    )
    assert all(not isinstance(v, float) or math.isfinite(v) for v in metrics.values())
