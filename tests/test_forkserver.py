"""Trainings that a process forks which has imported torch: as those that import it themselves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attention_ablation.base.signals import STOPS
from attention_ablation.cli import forkserver
from attention_ablation.cli.forkserver import ADDRESS, PACKAGE
from attention_ablation.runs.folder import steps_saved
from attention_ablation.study.expand import Plan
from tests.test_training import small_run, spec_file

# Stands in for the workflow: it starts the server, says where it is, and lives until told to end.
WORKFLOW = """
import os, sys
from attention_ablation.cli import forkserver
forkserver.start()
print(os.environ[forkserver.ADDRESS].partition(os.pathsep)[0], flush=True)
sys.stdin.read()
"""


Workflow = tuple[subprocess.Popen[str], Path]


@contextmanager
def started() -> Iterator[Workflow]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WORKFLOW], **pipes) as process:  # type: ignore[call-overload]
        yield process, Path(process.stdout.readline().strip())
        process.stdin.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """The address of a server that several tests call."""
    with started() as (_, address):
        yield address


@pytest.fixture
def workflow() -> Iterator[Workflow]:
    """One that a test may kill."""
    with started() as found:
        yield found


def train(spec: Path, address: Path, **environment: str) -> subprocess.Popen[str]:
    called = {ADDRESS: f"{address}{os.pathsep}{PACKAGE}", "OMP_NUM_THREADS": "1"}
    with (spec.parent / "train.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "attention_ablation.cli.main", "train", str(spec)],
            env=os.environ | called | environment,
            stdout=log, stderr=log, text=True,
        )  # fmt: skip


def forked(client: subprocess.Popen[str], address: Path) -> int:
    """Return the process that trains for a client: the server's child, whose socket it holds."""
    server = until(lambda: pids(f"cli.forkserver\0{address.parent}"))[0]
    children = Path(f"/proc/{server}/task/{server}/children")
    return until(lambda: [int(pid) for pid in children.read_text().split()])[0]


def pids(command: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if command in path.read_text():
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    # A forked process has the command line of the one that forked it.
    return sorted(found)


def until(found: Callable[[], list[int]], seconds: float = 60) -> list[int]:
    deadline = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert value
    return value


def numbers(spec: Path) -> dict[str, object]:
    metrics = json.loads((spec.parent / "metrics.json").read_text())
    return {
        key: metrics[key] for key in metrics
        if key.startswith(("train_", "validation_")) or key in ("weights_sha256", "threads")
    }  # fmt: skip


def test_a_forked_training_is_that_of_a_process_of_its_own(tiny: Plan, server: Path) -> None:
    spec = spec_file(small_run(tiny, epochs=3))
    assert train(spec, server, OMP_NUM_THREADS="2").wait() == 0  # it does not hand over
    alone = numbers(spec)
    startup = json.loads((spec.parent / "metrics.json").read_text())["startup_seconds"]
    for path in spec.parent.iterdir():
        if path != spec:
            path.unlink()
    assert train(spec, server).wait() == 0
    assert numbers(spec) == alone
    assert "epoch 3/3" in (spec.parent / "train.log").read_text()
    faster = json.loads((spec.parent / "metrics.json").read_text())["startup_seconds"]
    assert faster < startup / 2  # torch was there


@pytest.mark.parametrize("name", ["missing", "x" * 120])
def test_where_the_system_refuses_a_server_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No folder for temporary files, or one whose name is too long for a socket's."""
    if name != "missing":
        (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    monkeypatch.delenv(ADDRESS, raising=False)
    forkserver.start()
    assert ADDRESS not in os.environ
    assert not list(tmp_path.glob(f"{name}/*"))


def test_a_mistake_is_told_as_ever(tiny: Plan, server: Path) -> None:
    spec = spec_file(small_run(tiny))
    spec.write_text("no json")
    assert train(spec, server).wait() == 2
    assert (spec.parent / "train.log").read_text().startswith("attention-ablation: ")


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_reaches_the_training_which_stops_with_a_checkpoint(
    tiny: Plan, server: Path, number: signal.Signals
) -> None:
    spec = spec_file(small_run(tiny, epochs=1000))
    client = train(spec, server)
    until(lambda: [1] * (spec.parent / "history.csv").exists())
    client.send_signal(number)
    assert client.wait(60) == 128 + number
    assert steps_saved(spec.parent) > 0


def test_the_terminal_pauses_the_training_and_goes_on_with_it(tiny: Plan, server: Path) -> None:
    spec = spec_file(small_run(tiny, epochs=1000))
    client = train(spec, server)
    until(lambda: [1] * (spec.parent / "history.csv").exists())
    training = forked(client, server)

    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    client.send_signal(signal.SIGTSTP)  # Ctrl-Z
    until(lambda: [1] * (state(client.pid) == state(training) == "T"))
    client.send_signal(signal.SIGCONT)
    until(lambda: [1] * (state(training) != "T"))
    client.send_signal(signal.SIGINT)
    assert client.wait(60) == 128 + signal.SIGINT
    assert steps_saved(spec.parent) > 0


def test_one_that_is_killed_ends_nothing_but_itself(tiny: Plan, server: Path) -> None:
    spec, other = (spec_file(small_run(tiny, epochs=n)) for n in (1000, 3))
    client = train(spec, server)
    until(lambda: [1] * (spec.parent / "history.csv").exists())
    os.kill(forked(client, server), signal.SIGKILL)
    assert client.wait(60) == 128 + signal.SIGKILL
    assert train(other, server).wait(60) == 0


def test_who_handed_over_is_killed_and_the_training_stops(tiny: Plan, server: Path) -> None:
    spec = spec_file(small_run(tiny, epochs=1000))
    client = train(spec, server)
    until(lambda: [1] * (spec.parent / "history.csv").exists())
    client.kill()
    client.wait()
    until(lambda: [1] * ("stopped at step" in (spec.parent / "train.log").read_text()))


def test_the_server_ends_after_the_workflow_and_its_last_training(
    tiny: Plan, workflow: Workflow
) -> None:
    process, address = workflow
    spec = spec_file(small_run(tiny, epochs=20))
    client = train(spec, address)
    until(lambda: [1] * (spec.parent / "history.csv").exists())
    process.kill()
    assert client.wait(60) == 0
    until(lambda: [1] * (not address.parent.exists()))
    assert train(spec, address).wait() == 0  # without it


def test_the_server_is_killed_and_its_trainings_stop_with_a_checkpoint(
    tiny: Plan, workflow: Workflow
) -> None:
    _, address = workflow
    spec = spec_file(small_run(tiny, epochs=1000))
    client = train(spec, address)
    until(lambda: [1] * (spec.parent / "history.csv").exists())
    os.kill(pids(f"cli.forkserver\0{address.parent}")[0], signal.SIGKILL)
    assert client.wait(60) == 128 + signal.SIGTERM
    until(lambda: [1] * ("stopped at step" in (spec.parent / "train.log").read_text()))
