"""Whether a finished run's folder still says what the training wrote there.

It finds edits, damage and missing files, not forgery: whoever rewrites every file of a folder in
step is found by nothing but training the run again.
"""

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, read_text
from attention_ablation.runs.folder import (
    DETECTIONS,
    FAILURE,
    GRADCAM,
    GRADCAM_IMAGES,
    GRADCAM_MAPS,
    HISTORY,
    METRICS,
    RESULT,
    SPEC,
    WEIGHTS,
    read_outcome,
    read_run,
    sha256,
)
from attention_ablation.runs.records import (
    GRADCAM_MEANS,
    GradCam,
    Metrics,
    R,
    Result,
    disagreement,
    read_record,
    read_sealed,
)

# From bad to harmless. 'wrong': the number is not to be trusted. 'unverifiable': nothing speaks
# against it, and too little for it. 'warning' and 'note': worth knowing before it is published.
WRONG, UNVERIFIABLE, WARNING, NOTE = LEVELS = ("wrong", "unverifiable", "warning", "note")
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
    `weights`, which takes as long as reading them, `weights.pt` must have its digest, too. A run
    of a version that recorded no digests is 'unverifiable' where nothing else is found.
    """
    outcome = read_outcome(folder)
    if outcome.status == "damaged":
        remedy = f"`{_train(folder)}` writes it again, or trains the run again"
        # Nothing is shown of a run that only failed.
        level = WARNING if outcome.file == FAILURE else WRONG
        return [Finding(level, str(folder), f"damaged: {outcome.reason}", remedy)]
    facts = outcome.metrics
    if facts is None:
        return []
    found = [Finding(WRONG, str(folder), *said) for said in _wrong(folder, weights=weights)]
    if not found:
        found = [Finding(UNVERIFIABLE, str(folder), *said) for said in _open(folder, facts)]
    if facts.git_dirty:
        text = "trained with changes that were not committed, so that its code cannot be found"
        found.append(Finding(WARNING, str(folder), text))
    elif "git_commit" in facts.model_fields_set and facts.git_commit is None:
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


def _wrong(folder: Path, *, weights: bool) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a finished run's folder, and what to do."""
    metrics = _there(folder / METRICS, Metrics)
    rebuilt = f"`{_train(folder)}` writes it again from {METRICS} and {HISTORY}"
    try:
        result = _there(folder / RESULT, Result)
        if result and (why := disagreement(result.history, result.metrics)):
            raise UserError(f"{RESULT}: {why}")
    except UserError as error:
        yield f"damaged: {error}", f"{rebuilt}, or trains the run again"
        return
    kept = result.metrics if result else metrics
    assert kept  # or it would not have finished
    sealed = kept.history_sha256 is not None
    if sealed or (folder / SPEC).exists():
        try:
            read_run(folder / SPEC)
        except UserError as error:
            yield str(error), ""
    again = f"`{_train(folder)}` writes it again from {RESULT}"
    if metrics is None:
        yield f"{METRICS} is missing", again
    elif result is None and sealed:
        yield f"{RESULT}, which keeps what came out, is missing", rebuilt
    else:
        ours, theirs = metrics.recorded, kept.recorded
        for key in dict.fromkeys([*theirs, *ours]):
            if ours.get(key) != theirs.get(key):
                values = f"{ours.get(key)} in {METRICS} and {theirs.get(key)} in {RESULT}"
                yield f"{key} is {values}", again
    yield from _history(folder, kept, result, again)
    yield from _gradcam(folder, kept)
    if kept.initial_sha256:
        yield from _start(folder, kept.initial_sha256)
    if weights and sealed:
        yield from _whole(folder / WEIGHTS, kept.weights_sha256)
        if kept.detections_sha256:
            yield from _whole(folder / DETECTIONS, kept.detections_sha256)


def _history(
    folder: Path, kept: Metrics, result: Result | None, again: str
) -> Iterator[tuple[str, str]]:
    try:
        history = read_text(folder / HISTORY)
    except UserError as error:
        if kept.history_sha256 or not isinstance(error, Missing):
            yield f"{HISTORY} is missing or not text", again if result else RETRAIN
        return
    try:
        why = disagreement(history, kept)
    except UserError as error:
        why = str(error)
    if result and history != result.history:
        yield f"{HISTORY} is not the one in {RESULT}", again
    elif why:
        yield why, RETRAIN


def _gradcam(folder: Path, kept: Metrics) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with what Grad-CAM wrote: its means reach runs.csv and the claims."""
    again = f"`attention-ablation gradcam {folder / SPEC}` writes it again"
    try:
        found = _there(folder / GRADCAM, GradCam)
    except UserError as error:
        yield f"damaged: {error}", again
        return
    if found is None:
        return
    try:
        seals = {found.weights_sha256, kept.weights_sha256} - {None}
        if found.status != kept.status or len(seals) > 1:
            yield f"{GRADCAM} is of other weights than the run's", again
        read_sealed(folder / GRADCAM_MAPS, found.maps_sha256)
        images = read_sealed(folder / GRADCAM_IMAGES, found.images_sha256).decode()
        rows = list(csv.DictReader(images.splitlines()))
        for column, name in GRADCAM_MEANS.items():
            values = [float(row[column]) for row in rows if column in row]
            mean, said = fmean(values) if values else None, found.means[name]
            if mean is None or said is None:
                agree = mean is said
            else:
                agree = abs(mean - said) <= MEANS_AGREE
            if not agree:
                yield f"{name} in {GRADCAM} is not the mean of {GRADCAM_IMAGES}", again
    except UserError as error:
        yield str(error).replace(f"{folder}/", ""), again
    except (ValueError, TypeError, csv.Error):
        yield f"{GRADCAM_IMAGES}: expected a row of numbers for each image", again


def _open(folder: Path, facts: Metrics) -> Iterator[tuple[str, str]]:
    """Yield why a folder in which nothing is wrong cannot be verified."""
    if facts.history_sha256 is None:
        yield "finished by a version that recorded no digests", RETRAIN
    with suppress(UserError):
        found = _there(folder / GRADCAM, GradCam)
        if found and found.images_sha256 is None:
            again = f"`attention-ablation gradcam {folder / SPEC}` writes it again"
            yield f"{GRADCAM} was written by a version that recorded no digests", again


def _whole(path: Path, digest: str | None) -> Iterator[tuple[str, str]]:
    try:
        if not path.is_file():
            yield f"{path.name} is missing", RETRAIN
        elif sha256(path) != digest:
            yield f"{path.name} has not the digest that was recorded", RETRAIN
    except OSError as error:
        yield f"{path.name} cannot be read: {error.strerror}", RETRAIN


def _start(folder: Path, digest: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the weights that a detector's backbone started from."""
    try:
        first = read_run(folder / SPEC).initial
    except UserError:
        return  # said of that folder
    metrics = read_outcome(folder.parents[1] / first.path).metrics if first else None
    if first and metrics and metrics.weights_sha256 not in (None, digest):
        yield f"it started from other weights than {first.path} has now", RETRAIN


def _train(folder: Path) -> str:
    return f"attention-ablation train {folder / SPEC}"


def _there(path: Path, model: type[R]) -> R | None:
    """Read a file of the run's, None where there is none. Raises UserError where it is damaged."""
    try:
        return read_record(path, model)
    except Missing:
        return None
