"""Print how long a training takes from the start of its process to its first step.

    python -m benchmarks.start [--write]

A run of the quick tier, ResNet50, beside Python that imports torch alone, which no training can do
without, and torch and torchvision; in turns, so that what else the machine does meets all. The data
set is composed before. `--write` keeps every round in benchmarks/results/start.csv.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pandas as pd

from attention_ablation.cli.forkserver import ADDRESS, ONE_THREAD, PACKAGE
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.study.expand import load_plan
from attention_ablation.study.files import merged
from benchmarks.quick import header

ROUNDS = 9
SERVERS: list[subprocess.Popen[bytes]] = []  # kept, with the pipe that they live by
TARGET = 2.0  # seconds to the first step
# What ends a training after a step. Like the command, it imports without the garbage collector.
ENDED = """
import gc, os, sys
gc.disable()
from attention_ablation.training.loop import Loop
gc.enable()
step = Loop._step
Loop._step = lambda loop, batch: (step(loop, batch), os._exit(0))
"""
ALONE = (
    ENDED
    + """
from attention_ablation.cli.main import main
sys.exit(main(["train", "--device", "cpu", *sys.argv[1:]]))
"""
)
SERVER = (
    ENDED
    + """
from attention_ablation.cli.forkserver import main
main(*sys.argv[1:])
"""
)
FORKED = """
import os, sys
from attention_ablation.cli.forkserver import hand_over
os._exit(hand_over(["train", "--device", "cpu", *sys.argv[1:]]))
"""
# Without taking torch apart at the end, as the command does.
PROCESSES = {
    "a training's first step, forked, as `make tables` starts short runs": FORKED,
    "a training's first step, by itself": ALONE,
    "import torch": "import os, torch; os._exit(0)",
    "import torch, torchvision": "import os, torch, torchvision; os._exit(0)",
}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep every round as CSV")
    options = parser.parse_args()
    header()
    rounds = pd.DataFrame(measured())
    print("| from the start of Python | s, median | lowest and highest | CPU s | target |")
    print("|---|--:|--:|--:|--:|")
    for name in PROCESSES:
        chosen = rounds[rounds["process"] == name]
        wall, target = chosen["seconds"], f"{TARGET:.1f}" if "step" in name else ""
        # Of a forked one the server has them.
        cpu = "" if "forked" in name else f"{median(chosen['cpu_seconds']):.2f}"
        print(
            f"| {name} | {median(wall):.2f} | {wall.min():.2f}, {wall.max():.2f} | "
            f"{cpu} | {target} |"
        )
    if options.write:
        rounds.to_csv("benchmarks/results/start.csv", index=False)


def measured() -> list[dict[str, object]]:
    """Return every round's seconds of each process, after a round that fills the caches."""
    plan = load_plan(merged([Path("config.yaml")], {"tier": "quick"}))
    run = plan.row_runs("table4", "resnet50")[0]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        load(run.spec.recipe.dataset, Folders(data, data))
        start_server(Path(temporary) / "server")
        for number in range(ROUNDS + 1):
            for name, code in PROCESSES.items():
                spec = Path(temporary) / f"{number} {name[:32]}" / run.path / "spec.json"
                spec.parent.mkdir(parents=True)
                spec.write_text(run.canonical())
                given = [str(spec), "--data", str(data)] if code in (ALONE, FORKED) else []
                wall, cpu = seconds([sys.executable, "-c", code, *given])
                row = {"process": name, "round": number, "seconds": wall, "cpu_seconds": cpu}
                rows += [row] if number else []
    return rows


def start_server(folder: Path) -> None:
    """Start a server whose trainings end after a step; it ends with this process."""
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        number = listener.fileno()
        command = [sys.executable, "-c", SERVER, str(folder), str(number)]
        os.environ |= ONE_THREAD
        server = subprocess.Popen(command, pass_fds=[number], stdin=subprocess.PIPE)
    SERVERS.append(server)
    os.environ |= {ADDRESS: f"{folder / 'socket'}{os.pathsep}{PACKAGE}"}


def seconds(command: list[str]) -> tuple[float, float]:
    """Run a process; return its seconds, and those of the CPU, the system's for it included."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return round(wall, 3), round(usage.ru_utime + usage.ru_stime, 3)


if __name__ == "__main__":
    main()
