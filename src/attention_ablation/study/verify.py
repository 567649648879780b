"""Whether a finished run's folder still says what the training wrote there.

It finds edits, damage and missing files, not forgery: whoever rewrites every file of a folder in
step is found by nothing but training the run again.
"""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attention_ablation.study.errors import UserError
from attention_ablation.study.runs import (
    HISTORY,
    METRICS,
    RESULT,
    SPEC,
    WEIGHTS,
    read_run,
    sha256,
)

# From bad to harmless. 'wrong': the number is not to be trusted. 'unverifiable': nothing speaks
# against it, and too little for it. 'warning' and 'note': worth knowing before it is published.
WRONG, UNVERIFIABLE, WARNING, NOTE = LEVELS = ("wrong", "unverifiable", "warning", "note")
SEAL = "history_sha256"
RETRAIN = "delete the folder and train the run again"


@dataclass(frozen=True)
class Finding:
    """What is to be said of a run or a table; `where` is its folder or name."""

    level: str
    where: str
    text: str
    remedy: str = ""


def check_run(folder: Path, *, weights: bool = False) -> list[Finding]:
    """Return what is found in a run's folder, nothing where the run has not finished.

    The spec must hash to the folder; metrics and history must agree with each other, with what
    was kept in `result.json` and with the recorded digest; with `weights`, which takes as long as
    reading them, `weights.pt` must have its digest, too. A run of a version that recorded no
    digests is 'unverifiable' where nothing else is found.
    """
    try:
        metrics, result = _read(folder / METRICS), _read(folder / RESULT)
    except UserError as error:
        return [Finding(WRONG, str(folder), str(error), RETRAIN)]
    kept = result.get("metrics", {})
    if not (metrics or kept):
        return []
    sealed = SEAL in metrics or SEAL in kept
    wrong = list(_disagreements(folder, metrics, result, sealed=sealed))
    if digest := (kept or metrics).get("initial_sha256"):
        wrong += _start(folder, digest)
    if weights and sealed:
        wrong += _weights(folder, (kept or metrics).get("weights_sha256"))
    found = [Finding(WRONG, str(folder), text, remedy) for text, remedy in wrong]
    if not sealed and not found:
        text = "finished by a version that recorded no digests"
        found.append(Finding(UNVERIFIABLE, str(folder), text, RETRAIN))
    facts = metrics or kept
    if facts.get("git_dirty"):
        text = "trained with changes that were not committed, so that its code cannot be found"
        found.append(Finding(WARNING, str(folder), text))
    elif "git_commit" in facts and facts["git_commit"] is None:
        text = "trained outside of a git repository, so that its code is known by version alone"
        found.append(Finding(WARNING, str(folder), text))
    return found


def verdict(findings: list[Finding]) -> str:
    """Return 'yes', or why a finished run is not verified."""
    texts = [f.text for f in findings if f.level == WRONG]
    if texts:
        return "no: " + "; ".join(texts)
    open_ = [f.text for f in findings if f.level == UNVERIFIABLE]
    return f"{UNVERIFIABLE}: {open_[0]}" if open_ else "yes"


def _disagreements(
    folder: Path, metrics: dict[str, Any], result: dict[str, Any], *, sealed: bool
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a folder's small files, and what to do."""
    again = f"`attention-ablation train {folder / SPEC}` writes it again from {RESULT}"
    try:
        if sealed or (folder / SPEC).exists():
            read_run(folder / SPEC)
    except UserError as error:
        yield str(error), ""
    if not metrics:
        yield f"{METRICS} is missing", again
    kept: dict[str, Any] = result.get("metrics", {})
    if not kept and (sealed or result):
        yield f"{RESULT}, which keeps what came out, is missing or empty", RETRAIN
    if metrics and kept:
        for key in dict.fromkeys([*kept, *metrics]):
            if metrics.get(key) != kept.get(key):
                values = f"{metrics.get(key)} in {METRICS} and {kept.get(key)} in {RESULT}"
                yield f"{key} is {values}", again
    try:
        history = (folder / HISTORY).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        if sealed:
            yield f"{HISTORY} is missing or not text", again
        return
    seal = (kept or metrics).get(SEAL)
    if history != result.get("history", history):
        yield f"{HISTORY} is not the one in {RESULT}", again
    elif seal and sha256(folder / HISTORY) != seal:
        yield f"{HISTORY} has not the digest that was recorded", RETRAIN
    elif not _ends_in(history, kept or metrics):
        yield f"the last epoch in {HISTORY} has other numbers than {METRICS}", RETRAIN


def _ends_in(history: str, metrics: dict[str, Any]) -> bool:
    """Whether a history's last row has the numbers of the metrics."""
    rows = list(csv.DictReader(history.splitlines()))
    numbers = {k: v for k, v in metrics.items() if k.startswith(("train_", "validation_"))}
    try:
        last = {key: float(rows[-1][key]) for key in numbers}
    except (KeyError, IndexError, TypeError, ValueError):
        return False
    return metrics.get("epochs") == len(rows) and all(
        value == last[key] if value is not None else not math.isfinite(last[key])
        for key, value in numbers.items()
    )


def _weights(folder: Path, digest: object) -> Iterator[tuple[str, str]]:
    if not (folder / WEIGHTS).is_file():
        yield f"{WEIGHTS} is missing", RETRAIN
    elif sha256(folder / WEIGHTS) != digest:
        yield f"{WEIGHTS} has not the digest that was recorded", RETRAIN


def _start(folder: Path, digest: object) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the weights that a detector's backbone started from."""
    try:
        first = read_run(folder / SPEC).initial
        assert first  # or there would be no digest
        weights = _read(folder.parents[1] / first.path / METRICS).get("weights_sha256")
    except UserError:
        return  # said of that folder
    if weights and weights != digest:
        yield f"it started from other weights than {first.path} has now", RETRAIN


def _read(path: Path) -> dict[str, Any]:
    """Read an object, empty where there is no file. Raises UserError where it is not one."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):  # of JSON and of UTF-8
        data = None
    if not isinstance(data, dict):
        raise UserError(f"{path.name} is not a JSON object")
    return data
