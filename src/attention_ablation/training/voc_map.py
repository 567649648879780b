"""VOC 2007's average precision (Everingham et al. 2010, 4.2): 11 points, difficult objects ignored.

What the devkit's VOCevaldet.m does, in a few array operations: a detection is judged by the object
of its class and image that it overlaps most. That object hit for the first time, in the order of
scores, is a true positive; hit again, or overlapped too little, a false one; a difficult object is
neither found nor missed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Annotated = Sequence[Mapping[str, Any]]


def voc_map(
    predictions: Annotated, targets: Annotated, classes: Sequence[str], iou: float = 0.5
) -> dict[str, float]:
    """Return the average precision, 0 to 1, of each class that has an object; their mean is mAP.

    One prediction and one target for each image, of tensors on the CPU or of arrays:
    predictions: boxes (n, 4) x0, y0, x1, y1, scores (n,), labels (n,), where k is classes[k - 1].
    targets: boxes (m, 4), labels (m,) and, where there are any, difficult (m,) bool.
    iou: least overlap of a hit. Equal scores keep the order in which they are given.
    Classes without an object that is not difficult have no figure and are left out.
    """
    scores, labels, overlaps, objects = [], [], [], []
    difficult, object_labels = [], []
    first = 0  # number of the image's first object among all
    for prediction, target in zip(predictions, targets, strict=True):
        found, there = np.asarray(prediction["labels"]), np.asarray(target["labels"])
        overlap, best = _best(
            box_iou(np.asarray(prediction["boxes"]), np.asarray(target["boxes"])),
            found[:, None] == there[None],
        )
        scores.append(np.asarray(prediction["scores"]))
        labels.append(found)
        overlaps.append(overlap)
        objects.append(first + best)
        object_labels.append(there)
        difficult.append(np.asarray(target.get("difficult", np.zeros(len(there)))).astype(bool))
        first += len(there)
    if not first:
        return {}
    all_labels, is_difficult = np.concatenate(object_labels), np.concatenate(difficult)
    score, label = np.concatenate(scores), np.concatenate(labels)
    overlap, hit_object = np.concatenate(overlaps), np.concatenate(objects)
    order = np.argsort(-score, kind="stable")
    result = {}
    for k, name in enumerate(classes, start=1):
        wanted = int(((all_labels == k) & ~is_difficult).sum())
        if wanted:
            chosen = order[label[order] == k]
            hit = overlap[chosen] >= iou
            hit_objects = hit_object[chosen]
            ignored = hit.copy()
            ignored[hit] = is_difficult[hit_objects[hit]]
            counted = ~ignored
            correct = _first_hits(hit[counted], hit_objects[counted])
            result[name] = eleven_points(correct, wanted)
    return result


def eleven_points(correct: NDArray[np.bool_], objects: int) -> float:
    """Return the mean, over recalls of 0, 0.1 to 1, of the best precision at that recall or more.

    correct: (n,) whether each detection is a true positive, by falling score.
    """
    hits = correct.cumsum()
    precision = hits / np.arange(1, len(correct) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # In whole numbers: as fractions, a recall of 3 in 10 may fall below 0.3.
    at = np.searchsorted(10 * hits, np.arange(11) * objects)
    return float(best[at[at < len(correct)]].sum() / 11)


def box_iou(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Return (n, m) intersections over unions of boxes (n, 4) and (m, 4), x0, y0, x1, y1."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(min=0).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    iou: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def _best(
    iou: NDArray[np.float64], same_class: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each detection's greatest overlap with an object of its class, and which that is."""
    if not iou.shape[1]:
        return np.full(len(iou), -1.0), np.zeros(len(iou), np.int64)
    of_class = np.where(same_class, iou, -1.0)
    best = of_class.argmax(axis=1)
    return of_class[np.arange(len(iou)), best], best


def _first_hits(hit: NDArray[np.bool_], objects: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which detections, by falling score, are the first to hit their object."""
    where = np.flatnonzero(hit)
    _, first = np.unique(objects[where], return_index=True)
    correct = np.zeros(len(hit), bool)
    correct[where[first]] = True
    return correct
