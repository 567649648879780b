"""Kill trainings and `render` at random moments: each ends as one that was never interrupted.

    make benchmark-kills

A training is killed, resumed and killed again until it ends; then its history (without times),
weights and files are compared with those of the same training left alone. Writes are slowed, half
of a file at a time. Prints how it goes, then a Markdown table; benchmarks/README.md holds it.
"""

import argparse
import csv
import ctypes
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

import attention_ablation.report.html  # noqa: F401  (imported here, and not in each child)
from attention_ablation.study.config import Config
from attention_ablation.study.expand import load_plan
from tests.conftest import tiny_project
from tests.forked import PHASES, SLOW, WORKER, Child, slow_writes
from tests.own_images import own_run
from tests.photos import CLASSES, encoded, folder, photo
from tests.run_folders import ROWS, SEEDS, finished
from tests.small_detection import alone, detection_plan
from tests.test_training import TIMES, small_run, spec_file

HANGS = 60  # s that a process may take to end
KILL, TERM, INT = "SIGKILL", "SIGTERM", "SIGINT"
# 0: it ended by itself just before.
ENDS = {KILL: {-9, 0}, TERM: {143, -15, 0}, INT: {130, 0}, WORKER: {2, 0}, "": {0}}
MACHINE = {"peak_memory_mb", "git_commit", "git_dirty"}  # the checkout may change meanwhile
VARYING = TIMES | MACHINE | {"started", "finished", "startup_seconds", "history_sha256"}
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h: what a killed training leaves comes to this process


@dataclass(frozen=True)
class Work:
    """A command, the folder that it writes, how to compare that, and what is there before."""

    name: str
    command: list[str]
    folder: Path
    describe: Callable[[Path], dict[str, Any]]
    given: tuple[str, ...] = ()


def trained(folder: Path) -> dict[str, Any]:
    """What a training left, without times; raises where a file is half-written."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".part":
            found[path.name] = "left"
        elif path.suffix == ".json":
            found[path.name] = json.loads(path.read_text("utf-8"))
        elif path.name == "history.csv":
            found[path.name] = rows(path.read_text("utf-8"))
        elif path.suffix == ".pt":
            digest = found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            if path.name.startswith("checkpoint"):
                assert path.stem.endswith(digest[:16]), f"{path} is damaged"
        else:
            found[path.name] = path.name != ".lock" and path.read_bytes()
    if "metrics.json" in found:
        found["metrics.json"] = timeless(found["metrics.json"])
    if "result.json" in found:
        result = found["result.json"]
        result["metrics"] = timeless(result["metrics"])
        result["history"] = rows(result["history"])
    return found


def timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics without times, memory, and the digest of a history that holds times."""
    return {k: None if k in VARYING else v for k, v in metrics.items()}


def rows(history: str) -> list[dict[str, str]]:
    """A history without times; raises where it is half-written."""
    found = list(csv.DictReader(history.splitlines(), strict=True))
    assert all(None not in row and None not in row.values() for row in found), found
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


def rendered(folder: Path) -> dict[str, Any]:
    """All that is rendered, byte by byte."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Rounds:
    """Kills one work again and again, and counts."""

    def __init__(self, work: Work, random: Random, log: Path) -> None:
        self.work, self.random, self.log = work, random, log
        self.phases = PHASES if work.describe is trained else ("start", "write")
        self.kills: Counter[tuple[str, str]] = Counter()
        self.wrong: Counter[str] = Counter()
        self.ends = 0
        begin = time.monotonic()
        child = self.child()
        assert child.wait(child.ended, 10 * HANGS), "the undisturbed one hangs"
        assert child.code == 0, log.read_text("utf-8")
        self.seconds = time.monotonic() - begin
        self.expected = work.describe(work.folder)
        self.clear()

    def child(self) -> Child:
        """Start the work, with slowed writes."""
        slow = Random(self.random.getrandbits(32))
        return Child(self.work.command, self.log, partial(slow_writes, slow))

    def clear(self) -> None:
        for path in self.work.folder.iterdir():
            if path.name not in self.work.given:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def once(self, how: str) -> None:
        """Start the work, or go on with it, kill it if it is not yet done, and look."""
        child = self.child()
        if how:
            self.moment(child)
            phase = child.phase
            if child.end(how, to_all=self.random.random() < 0.5):
                self.kills[how, phase] += 1
            else:
                how = ""
        when = f"after {how} in {phase}" if how else "not killed"
        if not child.wait(child.ended, HANGS):
            self.fault("hangs", when)
        elif child.code not in ENDS[how]:
            self.fault("unexpected ends", f"code {child.code} {when}")
        if not child.wait(child.gone, 10):
            self.fault("processes left", when)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(child.gone, 10)
        self.compare(child.code == 0, when)

    def moment(self, child: Child) -> None:
        """Wait for a random moment, or for a random phase and then for a random moment."""
        if self.random.random() < 0.5:
            child.wait(child.ended, self.random.random() * self.seconds)
        else:
            phase = self.random.choice(self.phases)
            child.wait(lambda: child.phase == phase or child.ended(), HANGS)
            child.wait(child.ended, self.random.random() * 4 * SLOW)

    def compare(self, finished: bool, when: str) -> None:
        try:
            found = self.work.describe(self.work.folder)
        except (ValueError, AssertionError, csv.Error) as error:
            self.fault("half-written files", f"{when}: {error}")
            return self.clear()
        if finished:
            self.ends += 1
            unlike = {k for k in found | self.expected if found.get(k) != self.expected.get(k)}
            left = unlike - set(self.expected)
            if left:
                self.fault("files left", f"{sorted(left)} {when}")
            if unlike - left:
                self.fault("differences", f"{sorted(unlike - left)} {when}")
            self.clear()
        elif self.work.describe is rendered:
            for name, content in found.items():
                if not name.endswith(".part") and content != self.expected.get(name):
                    self.fault("half-written files", f"{name} {when}")

    def fault(self, what: str, text: str) -> None:
        self.wrong[what] += 1
        print(f"{self.work.name}: {what}: {text}", flush=True)


def works(root: Path) -> list[Work]:
    """Make projects below `root`, and return what is to be killed in them."""
    found = []

    def training(name: str, spec: Path, *options: str) -> None:
        command = ["train", str(spec.resolve()), "--data", str(root / "data"), *options]
        found.append(Work(name, command, spec.resolve().parent, trained, ("spec.json",)))

    for name in ("classification", "detection", "rendered", "data"):
        (root / name).mkdir()
    os.chdir(tiny_project(root / "classification"))
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table3"]))
    training("from memory", spec_file(small_run(plan, epochs=4)))
    folder(root / "data/own", CLASSES, 4, 2)
    (root / "data/own/val/n02979186/more.png").write_bytes(encoded(photo(99), "PNG"))
    training("from files, 2 workers", spec_file(own_run(plan, epochs=4)), "--workers", "2")
    os.chdir(tiny_project(root / "detection"))
    training("a detector", spec_file(alone(detection_plan(Path()), "table7", "mobilenet+ssd")))
    os.chdir(tiny_project(root / "rendered"))
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table3"], seeds=[0, 1, 2]))
    for number, key in enumerate(ROWS):
        for one in plan.row_runs("table3", key):
            finished(plan, one, 20.0 + 4 * number + 2 * one.seed)
    plan.folder.mkdir(parents=True, exist_ok=True)
    found.append(Work("render", ["render", *SEEDS], plan.folder.resolve(), rendered))
    return found


def main() -> None:
    """Kill trainings and renderings, and print a table of what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of trainings; default: 200")
    parser.add_argument("--renders", type=int, default=50, help="kills of render; default: 50")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when; default: 0")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no other
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        tempfile.tempdir = name  # a killed worker leaves its socket there
        found = works(root)
        random, log = Random(options.seed), root / "log"
        trainings = -(-options.kills // (len(found) - 1))
        done = []
        for work in found:
            os.chdir(work.folder.parents[2 if work.describe is rendered else 4])
            rounds = Rounds(work, random, log)
            done.append(rounds)
            signals = [KILL, TERM, INT] + [WORKER] * ("workers" in work.name)
            want = options.renders if work.describe is rendered else trainings
            while (kills := sum(rounds.kills.values())) < want:
                rounds.once(random.choice(signals))
                print(f"{work.name}: {kills} of {want} kills, {rounds.ends} ends", flush=True)
            rounds.once("")
    report(done)
    sys.exit(any(rounds.wrong for rounds in done))


def report(done: list[Rounds]) -> None:
    """Print the table."""
    faults = ["hangs", "unexpected ends", "processes left", "half-written files", "files left",
              "differences"]  # fmt: skip
    print(f"\n| killed | kills | by signal | by phase | ends | {' | '.join(faults)} |")
    print(f"|---|--:|---|---|--:|{'--:|' * len(faults)}")
    for rounds in done:
        signals, phases = Counter[str](), Counter[str]()
        for (how, phase), number in rounds.kills.items():
            signals[how] += number
            phases[phase] += number
        cells = [", ".join(f"{k} {n}" for k, n in c.most_common()) for c in (signals, phases)]
        wrong = " | ".join(str(rounds.wrong[fault]) for fault in faults)
        total = sum(rounds.kills.values())
        print(f"| {rounds.work.name} | {total} | {' | '.join(cells)} | {rounds.ends} | {wrong} |")


if __name__ == "__main__":
    main()
