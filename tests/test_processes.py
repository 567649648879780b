"""Several processes under torchrun train, stop and resume one run as one process would."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.datasets.reading.kept import composed_arrays
from attention_ablation.feed.batches import Source, source
from attention_ablation.feed.order import Part
from attention_ablation.runs.lock import lock_run
from attention_ablation.spec.spec import Run
from attention_ablation.study.config import Config
from attention_ablation.study.expand import load_plan
from attention_ablation.training.classify import Classification
from attention_ablation.training.machine import Machine, choose_device
from attention_ablation.training.processes import Processes
from attention_ablation.training.run import train
from attention_ablation.training.schedule import learning_rate
from tests.conftest import ROOT
from tests.launched import Scale
from tests.machines import ONE_CPU, in_one
from tests.test_training import CPU, classification, history, small_run

BIN = Path(sys.executable).parent
EPOCHS, STEPS, BATCH = 6, 4, 16
VALIDATION_IMAGES = 51  # two processes cannot take as many each


class Launch:
    """torchrun agents that train one spec, one for each node, all on this machine."""

    def __init__(self, spec: Path, data: Path, nodes: int = 1, **environment: str) -> None:
        # The command itself, or the same with a change of the test's.
        command = ["--no-python", str(BIN / "attention-ablation")]
        if environment:
            command = [str(ROOT / "tests/launched.py")]
        with socket.socket() as free:
            free.bind(("localhost", 0))
            endpoint = f"localhost:{free.getsockname()[1]}"
        self.agents = [
            subprocess.Popen(
                [
                    *(str(BIN / "torchrun"), f"--nnodes={nodes}", "--rdzv-backend=c10d"),
                    *(f"--rdzv-endpoint={endpoint}", "--rdzv-id=1", "--local-addr=localhost"),
                    *(f"--nproc-per-node={2 // nodes}", *command, "train", str(spec)),
                    *("--data", str(data)),
                ],
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path()} | environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for _ in range(nodes)
        ]  # fmt: skip

    def output(self, *, fails: bool = False) -> str:
        """Wait until all have ended, and return what they printed."""
        outputs = [agent.communicate(timeout=600)[0] for agent in self.agents]
        text = "".join(outputs)
        assert all((agent.returncode != 0) == fails for agent in self.agents), text
        return text


def path() -> str:
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Give this process as many threads as those that torchrun starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run() -> Run:
    """A run of several epochs, of few images, that hardly amplifies differences of rounding."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        plan = load_plan(Config(study="cbam", tier="quick", tables=["table3"]))
    dataset = small_run(plan).spec.recipe.dataset.model_dump()
    dataset |= {"train_images": STEPS * BATCH, "validation_images": VALIDATION_IMAGES}
    recipe = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 0.001}
    return small_run(plan, dataset=dataset, zero_init_residual=False, **recipe)


def place(run: Run, root: Path) -> Path:
    """Write the run's spec below a folder and return its path."""
    spec = root / run.path / "spec.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(run.canonical())
    return spec


@pytest.fixture(scope="module")
def data(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the composed data set."""
    folder = tmp_path_factory.mktemp("data")
    composed_arrays(run.spec.recipe.dataset, folder)
    return folder


@pytest.fixture(scope="module")
def together(run: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run as two nodes with a process each trained it, not interrupted."""
    spec = place(run, tmp_path_factory.mktemp("together"))
    text = Launch(spec, data, nodes=2).output()
    assert text.count(f"epoch {EPOCHS}/{EPOCHS}") == 1  # one of them prints
    assert "Warning" not in text, text
    return spec.parent


def numbers(folder: Path) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in row.items()} for row in history(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return found


def test_two_nodes_train_as_one_process_whose_batchnorm_sees_halves(
    run: Run, data: Path, together: Path
) -> None:
    task = classification(run, data)
    model, recipe = task.model, task.recipe
    optimizer = torch.optim.SGD(
        model.parameters(), momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
    found = numbers(together)
    assert [row["epoch"] for row in found] == list(range(1, EPOCHS + 1))
    for epoch, row in enumerate(found):
        losses = []
        model.train()
        for step, (images, labels) in enumerate(task.batches(epoch + 1), epoch * STEPS):
            optimizer.param_groups[0]["lr"] = learning_rate(
                recipe.schedule, recipe.learning_rate, step, STEPS, EPOCHS
            )
            halves = list(zip(images.chunk(2), labels.chunk(2), strict=True))
            smooth = recipe.label_smoothing
            optimizer.zero_grad()
            first = cross_entropy(model(halves[0][0]), halves[0][1], label_smoothing=smooth)
            (first / 2).backward()
            # The running statistics are those of the first half alone.
            kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
            second = cross_entropy(model(halves[1][0]), halves[1][1], label_smoothing=smooth)
            (second / 2).backward()
            model.load_state_dict(kept, strict=False)
            optimizer.step()
            losses.append((first.item() + second.item()) / 2)
        validation = task.source.validation_set
        with torch.no_grad():
            everything = torch.arange(VALIDATION_IMAGES)
            logits = model.eval()(task.source.batch(validation, everything)[0])
        loss = cross_entropy(logits, validation.labels).item()
        errors = (logits.argmax(1) != validation.labels).sum().item()
        # Equal to the last digit where kernels round alike; where not, steps amplify it, a
        # thousandfold in an epoch or two.
        near = 1e-4 if epoch < 2 else 5e-2
        assert row["train_loss"] == pytest.approx(sum(losses) / STEPS, rel=near)
        assert row["validation_loss"] == pytest.approx(loss, rel=near)
        wrong = row["validation_top1_error"] / 100 * VALIDATION_IMAGES
        assert wrong == pytest.approx(errors, abs=1e-4 if epoch < 2 else 4)
    state = weights(together)
    assert state.keys() == model.state_dict().keys()  # no 'module.' before the names
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0.1, atol=0.02)
    metrics = json.loads((together / "metrics.json").read_text())
    assert metrics["processes"] == 2
    assert metrics["validation_loss"] == found[-1]["validation_loss"]
    assert sorted(path.name for path in together.iterdir()) == [
        ".lock", "history.csv", "metrics.json", "result.json", "spec.json", "weights.pt"
    ]  # fmt: skip


def test_without_batchnorm_two_processes_equal_one(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = place(run, tmp_path)
    Launch(spec, data, NO_NORM="1").output()
    monkeypatch.setattr(nn, "BatchNorm2d", Scale)
    (tmp_path / "one").mkdir()
    train(run, tmp_path / "one", in_one(data), ONE_CPU)
    one, two = numbers(tmp_path / "one"), numbers(spec.parent)
    assert one[0]["train_loss"] != one[-1]["train_loss"]
    assert two == [pytest.approx(row, rel=1e-4) for row in one]
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(spec.parent)[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_parts_are_the_whole_and_each_image_is_in_one(run: Run, data: Path, size: int) -> None:
    whole = classification(run, data)
    images = load(run.spec.recipe.dataset, Folders(data, data))

    def part(rank: int, size: int) -> Source:
        return source(images, Part(run.spec.recipe, run.seed, rank, size), CPU)

    everything = whole.evaluate().clone()
    sums = torch.zeros(4)
    for rank in range(size):
        whole.source = part(rank, size)
        sums += whole.evaluate()
    assert sums[3] == VALIDATION_IMAGES
    torch.testing.assert_close(sums, everything, rtol=1e-5, atol=0)

    labels = [label for _, label in part(0, 1).training(1, 0)]
    parts = [[label for _, label in part(rank, 2).training(1, 0)] for rank in range(2)]
    joined = [torch.cat(pair) for pair in zip(*parts, strict=True)]
    assert all(torch.equal(*pair) for pair in zip(joined, labels, strict=True))


def test_a_signal_to_one_process_stops_all_and_any_number_goes_on(
    run: Run, data: Path, together: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = place(run, tmp_path / "two")
    text = Launch(spec, data, STOP_AT="10").output(fails=True)
    assert text.count("stopped at step 10; the next call goes on from there") == 1
    assert re.search(r"exitcode *: 143", text), text
    assert not (spec.parent / "failure.json").exists()
    assert len(list(spec.parent.glob("checkpoint-000000010-*.pt"))) == 1
    shutil.copytree(tmp_path / "two", tmp_path / "one")

    # One process goes on, with BatchNorm over whole batches from there.
    copy = tmp_path / "one" / run.path / "spec.json"
    assert main(["train", str(copy), "--data", str(data)]) == 0
    assert f"going on from step 10 of {EPOCHS * STEPS}" in capsys.readouterr().out
    one, expected = numbers(tmp_path / "one" / run.path), numbers(together)
    assert one[:2] == expected[:2]
    assert len(one) == EPOCHS
    for row in one:  # the interrupted epoch's images are counted once
        wrong = row["train_top1_error"] / 100 * STEPS * BATCH
        assert wrong == pytest.approx(round(wrong), abs=1e-4)
    outcome = json.loads((tmp_path / "one" / run.path / "metrics.json").read_text())
    assert outcome["processes"] == 1

    # Two go on, and torchrun itself is told to stop.
    text = Launch(spec, data, STOP_LAUNCHER_AT="14").output(fails=True)
    assert "going on from step 10 " in text
    assert text.count("stopped at step ") == 1
    text = Launch(spec, data).output()
    assert text.count("going on from step ") == 1
    two = numbers(spec.parent)
    # Summing the interrupted epochs' losses in another order moves the last digit of their means;
    # all else is the same bit for bit.
    losses = [[row.pop("train_loss") for row in rows] for rows in (two, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)
    assert two == expected
    assert all(torch.equal(v, weights(together)[name]) for name, v in weights(spec.parent).items())


def test_processes_stop_together_in_an_evaluation_and_make_it_again(
    run: Run, data: Path, together: Path, tmp_path: Path
) -> None:
    spec = place(run, tmp_path)
    # One process has two batches of at most 25 images, the other one.
    text = Launch(spec, data, STOP_IN_EVALUATION="25").output(fails=True)
    assert text.count(f"stopped at step {STEPS}; the next call goes on from there") == 1
    assert not (spec.parent / "failure.json").exists()
    text = Launch(spec, data).output()
    assert text.count(f"going on from step {STEPS} of {EPOCHS * STEPS}") == 1
    assert numbers(spec.parent) == numbers(together)
    assert all(torch.equal(v, weights(together)[name]) for name, v in weights(spec.parent).items())


class _Threads(Processes):
    """Processes as threads, which agree at a barrier."""

    def __init__(self, rank: int, size: int, shared: list[int], barrier: Barrier) -> None:
        super().__init__(rank, size)
        self.shared, self.barrier = shared, barrier

    def largest(self, number: int) -> int:
        self.shared[self.rank] = number
        self.barrier.wait()
        most = max(self.shared)
        self.barrier.wait()
        return most


@pytest.mark.parametrize("stops_at", [None, 2])
def test_processes_with_unlike_numbers_of_batches_are_asked_alike(stops_at: int | None) -> None:
    counts, shared, barrier = [3, 1, 0, 2], [0] * 4, Barrier(4, timeout=30)

    def process(rank: int) -> tuple[list[int], int]:
        one = _Threads(rank, 4, shared, barrier)
        got, asked = [], []

        def stop() -> None:
            asked.append(1)
            if one.largest(int(rank == 2 and len(asked) == stops_at)):
                raise InterruptedError

        with suppress(InterruptedError):
            got += list(one.in_step(range(counts[rank]), counts[rank], stop))
        return got, len(asked)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(process, range(4)))
    assert {asked for _, asked in found} == {stops_at or max(counts)}
    if stops_at is None:
        assert [got for got, _ in found] == [list(range(count)) for count in counts]


def test_a_process_that_fails_notes_why_and_one_that_is_gone_may_be_tried_again(
    run: Run, data: Path, tmp_path: Path
) -> None:
    spec = place(run, tmp_path)
    failure = spec.parent / "failure.json"
    Launch(spec, data, KILL_AT="6").output(fails=True)
    assert not failure.exists()
    assert len(list(spec.parent.glob("checkpoint-*.pt"))) == 1
    Launch(spec, data, FAIL_AT="6").output(fails=True)
    assert json.loads(failure.read_text())["reason"] == "ValueError: process 1 broke"


def test_a_batch_that_processes_cannot_share_is_named(run: Run, data: Path) -> None:
    images = load(run.spec.recipe.dataset, Folders(data, data))
    with pytest.raises(UserError, match="expected a multiple of the 3 processes, got 16; start"):
        Classification(run, images, Machine("cpu", processes=Processes(2, 3)))
    with pytest.raises(UserError, match=r"at least 2 images for each of the 16 proc.* got 16"):
        Classification(run, images, Machine("cpu", processes=Processes(2, 16)))


def test_processes_take_the_gpu_of_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cpu") == CPU
    with pytest.raises(UserError, match=r"--device: expected auto, cpu or cuda .* got cuda:0"):
        choose_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"--nproc-per-node: expected at most 2, .* got 3 or more"):
        choose_device("auto")


def test_who_waits_for_a_folder_says_so_to_the_others(tmp_path: Path) -> None:
    calls: list[int] = []

    class Enough(Exception):  # noqa: N818
        pass

    def meanwhile() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Enough

    with lock_run(tmp_path), pytest.raises(Enough), lock_run(tmp_path, meanwhile):
        pass
