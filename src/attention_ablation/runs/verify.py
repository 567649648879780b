"""Whether a finished run's folder still says what the training wrote there.

It finds edits, damage and missing files, not forgery: whoever rewrites every file of a folder in
step is found by nothing but training the run again.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import ValidationError

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, read_text
from attention_ablation.runs import folder as files
from attention_ablation.runs.folder import GRADCAM, HISTORY, METRICS, RESULT, SPEC, read_record
from attention_ablation.runs.records import GRADCAM_MEANS, GradCam, Metrics, Result, read_sealed

# From bad to harmless. 'wrong': the number is not to be trusted. 'warning' and 'note': worth
# knowing before it is published.
WRONG, WARNING, NOTE = LEVELS = ("wrong", "warning", "note")
# Means are rounded to 6 decimals, and made of more digits than gradcam.csv has.
MEANS_AGREE = 2e-6
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
    was kept in `result.json` and with the recorded digest, and so must what Grad-CAM wrote; with
    `weights`, which takes as long as reading them, `weights.pt` must have its digest, too.
    """
    outcome, where = files.read_outcome(folder), str(folder)
    if outcome.status == "damaged":
        remedy = f"{_again(folder)}, or trains the run again"
        # Nothing is shown of a run that only failed.
        level = WARNING if outcome.file == files.FAILURE else WRONG
        return [Finding(level, where, f"damaged: {outcome.reason}", remedy)]
    facts = outcome.metrics
    if facts is None:
        return []
    found = [Finding(WRONG, where, *wrong) for wrong in _wrong(folder, outcome, facts, weights)]
    text = ""
    if facts.git_dirty:
        text = "trained with changes that were not committed, so that its code cannot be found"
    elif facts.git_commit is None:
        text = "trained outside of a git repository, so that its code is known by version alone"
    return [*found, Finding(WARNING, where, text)] if text else found


def verdict(findings: list[Finding]) -> str:
    """Return 'yes', or why a finished run is not verified."""
    texts = [f.text for f in findings if f.level == WRONG]
    return "no: " + "; ".join(texts) if texts else "yes"


def _wrong(
    folder: Path, outcome: files.Outcome, facts: Metrics, weights: bool
) -> Iterator[tuple[str, ...]]:
    """Yield what is wrong with a finished run's folder, and what to do about each."""
    again = f"{_again(folder)} from {RESULT}"
    rebuilt = f"{_again(folder)} from {METRICS} and {HISTORY}"
    try:
        result = read_record(folder / RESULT, Result)
    except Missing:
        result = None
    except UserError as error:
        yield f"damaged: {error}", f"{rebuilt}, or trains the run again"
        return
    kept = result.metrics if result else facts
    try:
        first = files.read_run(folder / SPEC).initial
        start = files.read_outcome(folder.parents[1] / first.path).metrics if first else None
        if first and start and start.weights_sha256 != kept.initial_sha256:
            yield f"it started from other weights than {first.path} has now", RETRAIN
    except UserError as error:
        yield (str(error),)
    if outcome.file != METRICS:
        yield f"{METRICS} is missing", again
    elif result is None:
        yield f"{RESULT}, which keeps what came out, is missing", rebuilt
    ours, theirs = facts.recorded, kept.recorded
    for key in dict.fromkeys([*theirs, *ours]):
        if ours.get(key) != theirs.get(key):
            values = f"{ours.get(key)} in {METRICS} and {theirs.get(key)} in {RESULT}"
            yield f"{key} is {values}", again
    try:
        history = read_text(folder / HISTORY)
        if result and history != result.history:
            yield f"{HISTORY} is not the one in {RESULT}", again
        elif not result:
            Result(metrics=kept, history=history)
    except UserError:
        yield f"{HISTORY} is missing or not text", again if result else RETRAIN
    except ValidationError as error:
        yield files.reason(error), RETRAIN
    remedy = f"`attention-ablation gradcam {folder / SPEC}` writes it again"
    for text in _gradcam(folder, kept):
        yield text.replace(f"{folder}/", ""), remedy
    if weights:
        sealed = {files.WEIGHTS: kept.weights_sha256, files.DETECTIONS: kept.detections_sha256}
        for text in _whole(folder, sealed):
            yield text, RETRAIN


def _gradcam(folder: Path, kept: Metrics) -> Iterator[str]:
    """Yield what is wrong with what Grad-CAM wrote: its means reach runs.csv and the claims."""
    images = files.GRADCAM_IMAGES
    try:
        found = read_record(folder / GRADCAM, GradCam)
    except Missing:
        return
    except UserError as error:
        yield f"damaged: {error}"
        return
    if (found.status, found.weights_sha256) != (kept.status, kept.weights_sha256):
        yield f"{GRADCAM} is of other weights than the run's"
    try:
        read_sealed(folder / files.GRADCAM_MAPS, found.maps_sha256)
        content = read_sealed(folder / images, found.images_sha256).decode()
        rows = list(csv.DictReader(content.splitlines()))
        for column, name in GRADCAM_MEANS.items():
            values = [float(row[column]) for row in rows if column in row]
            mean, said = fmean(values) if values else None, found.means[name]
            if mean is None or said is None:
                agree = mean is said
            else:
                agree = abs(mean - said) <= MEANS_AGREE
            if not agree:
                yield f"{name} in {GRADCAM} is not the mean of {images}"
    except UserError as error:
        yield str(error)
    except (ValueError, TypeError, csv.Error):
        yield f"{images}: expected a row of numbers for each image"


def _whole(folder: Path, sealed: dict[str, str | None]) -> Iterator[str]:
    for name, digest in sealed.items():
        try:
            if digest and not (folder / name).is_file():
                yield f"{name} is missing"
            elif digest and files.sha256(folder / name) != digest:
                yield f"{name} has not the digest that was recorded"
        except OSError as error:
            yield f"{name} cannot be read: {error.strerror}"


def _again(folder: Path) -> str:
    return f"`attention-ablation train {folder / SPEC}` writes it again"
