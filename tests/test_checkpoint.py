"""A training that is interrupted, at any moment, ends as one that was not."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attention_ablation.base.errors import UserError
from attention_ablation.base.signals import STOPS
from attention_ablation.cli.main import main
from attention_ablation.feed.batches import Batch, MemorySource
from attention_ablation.runs.folder import remove_leftovers, steps_saved
from attention_ablation.study.expand import Plan
from attention_ablation.training import checkpoint, energy
from attention_ablation.training.loop import Loop
from tests.test_training import classification, history, small_run, spec_file

EPOCHS = 10


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "attention_ablation.cli.main", "train", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.fixture
def spec(tiny: Plan) -> Path:
    """The spec of a run of several epochs."""
    return spec_file(small_run(tiny, epochs=EPOCHS))


@pytest.fixture
def expected(spec: Path) -> tuple[list[dict[str, str]], dict[str, torch.Tensor]]:
    """History and final weights of the uninterrupted run, whose folder is then emptied."""
    assert main(["train", str(spec)]) == 0
    result = outcome(spec)
    for path in spec.parent.iterdir():
        if path != spec:
            path.unlink()
    return result


def outcome(spec: Path) -> tuple[list[dict[str, str]], dict[str, torch.Tensor]]:
    return history(spec.parent), torch.load(spec.parent / "weights.pt", weights_only=True)


def assert_equal(
    found: tuple[list[dict[str, str]], dict[str, torch.Tensor]],
    expected: tuple[list[dict[str, str]], dict[str, torch.Tensor]],
) -> None:
    assert found[0] == expected[0]
    assert all(torch.equal(value, expected[1][name]) for name, value in found[1].items())


def test_killed_again_and_again_it_ends_as_if_it_never_was(
    spec: Path, expected: tuple[list[dict[str, str]], dict[str, torch.Tensor]]
) -> None:
    kills, seen = 0, set()
    while kills < 4:
        process = start(spec)
        checkpoints = set(spec.parent.glob("checkpoint-*.pt"))
        deadline = time.monotonic() + 300
        # Until it has gone on a little; then another moment each time.
        while process.poll() is None and time.monotonic() < deadline:
            if set(spec.parent.glob("checkpoint-*.pt")) - checkpoints:
                break
            time.sleep(0.002)
        time.sleep(0.013 * kills)
        process.kill()
        process.communicate()
        kills += 1
        seen |= {path.name[:20] for path in spec.parent.glob("checkpoint-*.pt")}
        if (spec.parent / "metrics.json").exists():
            break
    assert len(seen) >= 3  # it was interrupted after several epochs
    assert main(["train", str(spec)]) == 0
    assert_equal(outcome(spec), expected)
    assert not list(spec.parent.glob("checkpoint*"))


# Dies while the second checkpoint is written: with half of it on the disk, or with all of it there
# that has no name yet.
KILLED_IN_THE_WRITE = """
import os, signal, sys
from attention_ablation.cli.main import main

plain, calls, at = os.fsync, [], sys.argv[2]

def fsync(number):
    calls.append(number)
    if len(calls) == 2:
        if at == "half":
            os.ftruncate(number, os.fstat(number).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    plain(number)

os.fsync = fsync
main(["train", sys.argv[1]])
"""


@pytest.mark.parametrize("at", ["half", "whole"])
def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_one_before(
    spec: Path,
    expected: tuple[list[dict[str, str]], dict[str, torch.Tensor]],
    at: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_IN_THE_WRITE, spec, at], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(spec.parent.glob("checkpoint-*.pt"))) == 1
    part = (spec.parent / "checkpoint.part").stat().st_size
    whole = next(spec.parent.glob("checkpoint-*.pt")).stat().st_size
    assert part == pytest.approx(whole / 2 if at == "half" else whole, rel=0.1)
    assert main(["train", str(spec)]) == 0
    assert f"going on from step 4 of {4 * EPOCHS}" in capsys.readouterr().out
    assert_equal(outcome(spec), expected)
    assert not list(spec.parent.glob("checkpoint*"))


def test_what_failed_by_itself_is_not_tried_again_and_a_lost_machine_is(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(loop: Loop, *_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            main(["train", str(spec)])
    failure = spec.parent / "failure.json"
    assert "80 GiB" in failure.read_text()
    assert main(["train", str(spec), "--attempt", "2"]) == 2
    error = capsys.readouterr().err
    assert "it failed in the attempt before: OutOfMemoryError: tried to allocate 80 GiB" in error
    assert not list(spec.parent.glob("checkpoint*"))
    assert main(["train", str(spec)]) == 0  # another call of the workflow does try it
    assert not failure.exists()
    (spec.parent / "result.json").unlink()
    (spec.parent / "metrics.json").unlink()
    assert main(["train", str(spec), "--attempt", "2"]) == 0  # no failure: the machine was lost


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_writes_a_checkpoint_at_the_next_step(
    spec: Path,
    expected: tuple[list[dict[str, str]], dict[str, torch.Tensor]],
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = Loop._step

    def interrupted(loop: Loop, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        plain(loop, batch)
        if loop.step == 10:  # four steps an epoch: in the middle of the third
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_step", interrupted)
        with pytest.raises(SystemExit) as stopped:
            main(["train", str(spec)])
    assert stopped.value.code == 128 + number
    assert not (spec.parent / "failure.json").exists()
    assert "stopped at step 10" in capsys.readouterr().out
    assert main(["train", str(spec)]) == 0
    assert f"going on from step 10 of {4 * EPOCHS}" in capsys.readouterr().out
    assert_equal(outcome(spec), expected)


@pytest.mark.parametrize("older", [False, True])
def test_joules_are_those_of_all_attempts_unless_a_checkpoint_does_not_say(
    spec: Path, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, used = Loop._step, [7.0]
    monkeypatch.setattr(energy, "counter", lambda machine: sum(used))

    def counted(loop: Loop, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        plain(loop, batch)
        used.append(1.0)  # a joule a step
        if loop.step == len(used) - 1 == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Loop, "_step", counted)
    with pytest.raises(SystemExit):
        main(["train", str(spec)])
    used.append(1000.0)  # somebody else's
    if older:  # written before joules were counted
        state = checkpoint.load(spec.parent)
        assert state
        del state["joules"]
        checkpoint.save(spec.parent, 10, state)
    assert main(["train", str(spec)]) == 0
    metrics = json.loads((spec.parent / "metrics.json").read_text())
    assert metrics.get("joules") == (None if older else 4 * EPOCHS)


@pytest.mark.parametrize("how", ["stopped", "dies"])
def test_an_evaluation_that_is_interrupted_is_made_again_and_no_step_is(
    spec: Path,
    expected: tuple[list[dict[str, str]], dict[str, torch.Tensor]],
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, step, evaluations, steps = MemorySource.validation, Loop._step, [], []

    def interrupted(source: MemorySource) -> Iterator[Batch]:
        evaluations.append(1)
        if len(evaluations) == 3:
            if how == "dies":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
            yield from plain(source)  # one batch
            raise AssertionError("the evaluation went on")
        yield from plain(source)

    def counted(loop: Loop, batch: Batch) -> None:
        steps.append(1)
        step(loop, batch)

    with monkeypatch.context() as patched:
        patched.setattr(MemorySource, "validation", interrupted)
        with pytest.raises(KeyboardInterrupt if how == "dies" else SystemExit) as ended:
            main(["train", str(spec)])
    if how == "stopped":
        assert ended.value.args == (128 + signal.SIGTERM,)
        assert "stopped at step 12; the next call goes on from there" in capsys.readouterr().out
    monkeypatch.setattr(Loop, "_step", counted)
    assert main(["train", str(spec)]) == 0
    assert f"going on from step 12 of {4 * EPOCHS}" in capsys.readouterr().out
    assert len(steps) == 4 * EPOCHS - 12
    assert_equal(outcome(spec), expected)


def test_a_checkpoint_replaces_the_one_of_its_step(tmp_path: Path) -> None:
    for step, number in ((1, 1), (2, 1), (3, 1), (3, 2), (3, 3)):
        checkpoint.save(tmp_path, step, {"number": number})
    assert checkpoint.load(tmp_path) == {"number": 3}
    names = sorted(path.name[:20] for path in tmp_path.iterdir())
    assert names == ["checkpoint-000000002", "checkpoint-000000003"]


def test_one_saved_after_starting_over_outlives_the_damaged_ones(tmp_path: Path) -> None:
    for step in (100, 200):
        checkpoint.save(tmp_path, step, {"step": step})
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, 50, {"step": 50})
    assert checkpoint.load(tmp_path) == {"step": 50}
    assert steps_saved(tmp_path) == 50


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), "cannot be read: Stale file handle"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), "cannot be read: Permission denied"),
        (MemoryError(), "memory does not suffice to read it"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})

    def fails(*_: object) -> int:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fails)
        with pytest.raises(UserError, match=said):
            checkpoint.load(tmp_path)
    assert checkpoint.load(tmp_path) == {"step": 1}


def test_checkpoints_go_when_the_result_is_on_the_disk(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    fsync, unlink = os.fsync, Path.unlink

    def synced(number: int) -> None:
        events.append(("sync", Path(f"/proc/self/fd/{number}").readlink().name))
        fsync(number)

    def removed(path: Path, missing_ok: bool = False) -> None:
        events.append(("remove", path.name))
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "unlink", removed)
    assert main(["train", str(spec)]) == 0
    at = [events.index(("sync", name)) for name in (".result.json.part", spec.parent.name)]
    last = [i for i, (what, name) in enumerate(events) if what == "remove" and name[-3:] == ".pt"]
    assert at == sorted(at)
    assert sum(i > at[1] for i in last) == 2


def test_only_what_a_training_begins_is_removed_at_its_end(tmp_path: Path) -> None:
    for name in (".mygate.py.part", ".gradcam.py.part", ".result.json.part", ".history.csv0.part"):
        (tmp_path / name).touch()
    others = {f".{name}.part" for name in ("gradcam.json", "gradcam.csv", "gradcam.npz")}
    for name in others:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == others


def stop_after(epochs: int, spec: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Train some epochs, then die; return the checkpoints, the newest last."""
    plain = Loop.epoch

    def dies(loop: Loop, *arguments: object) -> object:
        if len(loop.history) == epochs:
            raise KeyboardInterrupt
        return plain(loop, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "epoch", dies)
        with pytest.raises(KeyboardInterrupt):
            main(["train", str(spec)])
    return sorted(spec.parent.glob("checkpoint-*.pt"))


def test_a_damaged_checkpoint_falls_back_to_the_one_before_or_to_the_start(
    spec: Path,
    expected: tuple[list[dict[str, str]], dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, newest = stop_after(3, spec, monkeypatch)  # the last two are kept
    newest.write_bytes(newest.read_bytes()[:-1000])  # cut short
    assert len(stop_after(4, spec, monkeypatch)) == 2
    output = capsys.readouterr().out
    assert f"warning: {newest} is damaged; falling back" in output
    assert f"going on from step 8 of {4 * EPOCHS}" in output
    for path in spec.parent.glob("checkpoint-*.pt"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1  # one bit
        path.write_bytes(content)
    assert main(["train", str(spec)]) == 0
    assert "warning: no sound checkpoint is left; starting over." in capsys.readouterr().out
    assert_equal(outcome(spec), expected)
    assert before != newest


def test_a_full_disk_leaves_the_last_good_state_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, 1, {"weight": torch.ones(3)})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        checkpoint.save(tmp_path, 2, {"weight": torch.zeros(3)})
    state = checkpoint.load(tmp_path)
    assert state is not None
    assert state["weight"].tolist() == [1, 1, 1]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_text("a file")
    with pytest.raises(UserError, match=r"nowhere.*cannot be written: .*(exists|directory)"):
        checkpoint.save(tmp_path / "nowhere", 1, {})


def test_a_half_written_checkpoint_is_never_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    (tmp_path / "checkpoint.part").write_bytes(b"half of it")
    assert checkpoint.load(tmp_path) == {"step": 1}


def test_what_torch_refuses_is_passed_over_and_a_users_own_file_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    for step, content in ((2, b"no checkpoint"), (3, b"")):
        digest = hashlib.sha256(content).hexdigest()[:16]
        (tmp_path / f"checkpoint-{step:09d}-{digest}.pt").write_bytes(content)
    (tmp_path / f"checkpoint-000000004-{'0' * 16}.pt").mkdir()
    (tmp_path / "checkpoint-best.pt").write_bytes(b"a user's own")
    assert checkpoint.load(tmp_path) == {"step": 1}
    assert capsys.readouterr().out.count("is damaged; falling back") == 3
    assert steps_saved(tmp_path) == 3  # a folder holds none
    remove_leftovers(tmp_path)
    assert (tmp_path / "checkpoint-best.pt").exists()


def test_a_disk_too_full_for_the_reason_leaves_the_sentence(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        assert main(["train", str(spec)]) == 2
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert not (spec.parent / "failure.json").exists()


def test_the_state_holds_the_scaler_and_the_random_state(tiny: Plan, tmp_path: Path) -> None:
    run = small_run(tiny, precision="fp16")
    first, second = (Loop(classification(run, tmp_path)) for _ in range(2))
    first._step(next(first.task.batches(1)))
    first.scaler.update(123.0)
    checkpoint.save(tmp_path, first.step, first.state_dict())
    drawn = torch.rand(3)
    state = checkpoint.load(tmp_path)
    assert state is not None
    second.load_state_dict(state)
    assert second.scaler.get_scale() == 123.0
    assert second.step == 1
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(second.sums, first.sums)
