"""Trainings spread over the GPUs of a machine; a fake nvidia-smi says which there are."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.study.expand import Plan
from attention_ablation.training.machine import choose_device
from attention_ablation.training.slots import VISIBLE, gpu_slot, granted, visible_gpus
from tests.test_training import small_run, spec_file

TWO_GPUS = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-a1)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-b2)
"""
ONE_OF_TWO_DIVIDED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-a1)
  MIG 3g.20gb     Device  0: (UUID: MIG-GPU-a1/1/0)
  MIG 3g.20gb     Device  1: (UUID: MIG-GPU-a1/2/0)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-b2)
"""
# Says which GPU it holds, then holds it until its input ends.
HOLDER = """
import os, sys, time
from attention_ablation.training.slots import gpu_slot
with gpu_slot(int(sys.argv[1])) as gpu:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu and "torch" not in sys.modules
    begin = time.monotonic()
    print("holds", gpu, flush=True)
    sys.stdin.read()
    print("held", gpu, begin, time.monotonic(), flush=True)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make this a machine whose nvidia-smi lists what the test says."""

    def has(listed: str) -> None:
        smi = tmp_path / "bin/nvidia-smi"
        smi.parent.mkdir()
        smi.write_text(f"#!/bin/sh\n[ \"$*\" = -L ] && cat <<'END'\n{listed}END\n")
        smi.chmod(0o755)
        monkeypatch.setenv("PATH", str(smi.parent), prepend=os.pathsep)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.delenv(VISIBLE, raising=False)

    return has


def holder(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_never_two_on_one_gpu_and_none_left_idle(machine: Callable[[str], None]) -> None:
    machine(TWO_GPUS)
    processes = [holder(1) for _ in range(5)]
    first = sorted(line(process) for process in processes)
    waiting = "all GPUs are taken (GPU-a1, GPU-b2); waiting for a free one."
    assert first == [waiting] * 3 + ["holds GPU-a1", "holds GPU-b2"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()  # of all, because one that waits ends after another
        process.stdin = None
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 5
    spans: dict[str, list[tuple[float, float]]] = {}
    for output in outputs:
        _, gpu, begin, end = output.splitlines()[-1].split()
        spans.setdefault(gpu, []).append((float(begin), float(end)))
    assert spans.keys() == {"GPU-a1", "GPU-b2"}
    for held in map(sorted, spans.values()):
        assert all(first[1] <= second[0] for first, second in pairwise(held))


def test_all_gpus_have_one_run_before_any_has_two(machine: Callable[[str], None]) -> None:
    machine(TWO_GPUS)
    processes: list[subprocess.Popen[str]] = []
    lines = []
    for _ in range(5):
        processes.append(holder(2))
        lines.append(line(processes[-1]))
    assert lines[:4] == ["holds GPU-a1", "holds GPU-b2", "holds GPU-a1", "holds GPU-b2"]
    assert "waiting" in lines[4]
    # A killed one leaves its slot to the one that waits.
    processes[1].send_signal(signal.SIGKILL)
    assert line(processes[4]) == "holds GPU-b2"
    for process in processes:
        process.communicate(timeout=300)


@pytest.mark.parametrize(
    ("listed", "visible", "expected"),
    [
        (TWO_GPUS, None, ["GPU-a1", "GPU-b2"]),
        (TWO_GPUS, "1", ["GPU-b2"]),
        (TWO_GPUS, "1, 0", ["GPU-b2", "GPU-a1"]),
        (TWO_GPUS, "GPU-b", ["GPU-b2"]),
        (TWO_GPUS, "GPU-", []),  # which one?
        (TWO_GPUS, "0,7,1", ["GPU-a1"]),
        (TWO_GPUS, "MIG-c3", ["MIG-c3"]),
        (TWO_GPUS, "", []),
        (TWO_GPUS, "-1", []),
        (ONE_OF_TWO_DIVIDED, None, ["MIG-GPU-a1/1/0", "MIG-GPU-a1/2/0", "GPU-b2"]),
        (ONE_OF_TWO_DIVIDED, "MIG-GPU-a1/2/0", ["MIG-GPU-a1/2/0"]),
        ("", None, []),
    ],
)
def test_visible_gpus_are_those_that_cuda_would_see(
    machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    listed: str,
    visible: str | None,
    expected: list[str],
) -> None:
    machine(listed)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    assert visible_gpus() == expected
    with gpu_slot(1) as gpu:
        assert gpu == (expected[0] if expected else None)
        assert os.environ.get(VISIBLE) == (gpu or visible)
    assert os.environ.get(VISIBLE) == visible


def test_without_nvidia_smi_there_is_no_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VISIBLE, raising=False)
    with gpu_slot(1) as gpu:
        assert gpu is None
    assert not granted()
    with pytest.raises(UserError, match="--runs-per-gpu: expected 1 or more, got 0"), gpu_slot(0):
        pass


def test_a_training_sees_its_gpu_alone(
    tiny: Plan, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(TWO_GPUS)
    path = spec_file(small_run(tiny))
    seen = []

    def train(*arguments: Any) -> None:
        seen.append((os.environ.get(VISIBLE), str(arguments[3].device)))

    monkeypatch.setattr("attention_ablation.training.run.train", train)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert main(["train", str(path)]) == 0
    assert main(["train", str(path), "--device", "cpu"]) == 0
    assert main(["train", str(path), "--device", "cuda:1"]) == 0
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)  # torchrun with one process
    assert main(["train", str(path)]) == 0
    assert seen == [("GPU-a1", "cuda"), (None, "cpu"), (None, "cuda:1"), (None, "cuda:0")]


def test_a_granted_gpu_that_torch_does_not_find_is_an_error(
    tiny: Plan,
    machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(TWO_GPUS)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = spec_file(small_run(tiny))
    assert main(["train", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"expected a GPU, because {VISIBLE} is GPU-a1, but torch {torch.__version__}" in error
    assert "--device cpu" in error
    assert json.loads((path.parent / "failure.json").read_text())["status"] == "failed"
    with pytest.raises(UserError, match="because nvidia-smi lists GPU-a1, GPU-b2, but torch"):
        choose_device("auto")
    for nothing in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv(VISIBLE, nothing)
        assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setenv(VISIBLE, "0")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=f"because {VISIBLE} is 0, but torch"):
        choose_device("auto")
