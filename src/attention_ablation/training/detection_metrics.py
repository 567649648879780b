"""Mean average precision of detections: VOC 2007's, and COCO's by pycocotools.

Predictions and targets are given as one mapping for each image, of tensors on the CPU or of arrays:
predictions: boxes (n, 4) x0, y0, x1, y1, scores (n,), labels (n,) from 1.
targets: boxes (m, 4), labels (m,) and, where there are any, difficult or crowd (m,) bool, which are
neither found nor missed.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

MAX_DETECTIONS = 100  # an image, as in COCO's own figures
Annotated = Sequence[Mapping[str, Any]]


def coco_map(predictions: Annotated, targets: Annotated) -> dict[str, float]:
    """Return map (at IoU .5 to .95 by .05), map_50 and map_75: 0 to 1, means over the classes.

    Classes without an object are left out; without any, ValueError is raised.
    """
    truth = _coco(targets, [None] * len(targets))
    found = _coco(predictions, [np.asarray(p["scores"]).tolist() for p in predictions])
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        # The protocol's figures for small, medium and large objects would cost three times more.
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # (IoUs, recalls, classes)
    # -1 where a class has no object.
    precision = precision[:, :, (precision > -1).all(axis=(0, 1))]
    if not precision.size:
        raise ValueError("expected at least one object to evaluate detections, got none")
    by_iou = precision.mean(axis=(1, 2))
    at_50, at_75 = (int(np.isclose(evaluation.params.iouThrs, t).argmax()) for t in (0.5, 0.75))
    figures = {"map": by_iou.mean(), "map_50": by_iou[at_50], "map_75": by_iou[at_75]}
    return {name: float(figure) for name, figure in figures.items()}


def _coco(images: Annotated, scores: Sequence[list[float] | None]) -> Any:
    """Return the boxes of all images as pycocotools has them, still without its index."""
    annotations: list[dict[str, Any]] = []
    labels: set[int] = set()
    for i, (image, score) in enumerate(zip(images, scores, strict=True)):
        boxes = np.asarray(image["boxes"], np.float64).reshape(-1, 4).copy()
        boxes[:, 2:] -= boxes[:, :2]
        names = np.asarray(image["labels"]).tolist()
        crowd = np.asarray(image.get("crowd", np.zeros(len(boxes)))).astype(int).tolist()
        labels.update(names)
        for k, (box, label) in enumerate(zip(boxes.tolist(), names, strict=True)):
            annotation = {"id": len(annotations) + 1, "image_id": i, "category_id": label}
            annotation |= {"bbox": box, "area": box[2] * box[3], "iscrowd": crowd[k]}
            if score is not None:
                annotation["score"] = score[k]
            annotations.append(annotation)
    coco: Any = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(len(images))],
        "categories": [{"id": label} for label in sorted(labels)],
        "annotations": annotations,
    }
    return coco


def voc_map(
    predictions: Annotated, targets: Annotated, classes: Sequence[str], iou: float = 0.5
) -> dict[str, float]:
    """Return the average precision, 0 to 1, of each class that has an object; their mean is mAP.

    What the devkit's VOCevaldet.m does (Everingham et al. 2010, 4.2): a detection is judged by the
    object of its class and image that it overlaps most. That object hit for the first time, in the
    order of scores, is a true positive; hit again, or overlapped too little, a false one.

    classes: label k is classes[k - 1]. iou: least overlap of a hit. Equal scores keep the order in
    which they are given. Classes without an object that is not difficult are left out.
    """
    images = []
    first = 0  # number of the image's first object among all
    for prediction, target in zip(predictions, targets, strict=True):
        found, there = np.asarray(prediction["labels"]), np.asarray(target["labels"])
        boxes = (torch.as_tensor(image["boxes"]).double() for image in (prediction, target))
        overlaps = box_iou(*boxes).nan_to_num().numpy()  # (n, m); no number between empty boxes
        overlaps = np.where(found[:, None] == there[None], overlaps, -1.0)
        overlaps = np.pad(overlaps, ((0, 0), (0, 1)), constant_values=-1.0)  # there may be none
        difficult = np.asarray(target.get("difficult", np.zeros(len(there)))).astype(bool)
        scores, objects = np.asarray(prediction["scores"]), first + overlaps.argmax(axis=1)
        images.append((scores, found, overlaps.max(axis=1), objects, there, difficult))
        first += len(there)
    if not first:
        return {}
    score, label, overlap, hit_object, labels, is_difficult = map(
        np.concatenate, zip(*images, strict=True)
    )
    order = np.argsort(-score, kind="stable")
    result = {}
    for k, name in enumerate(classes, start=1):
        wanted = int(((labels == k) & ~is_difficult).sum())
        if wanted:
            chosen = order[label[order] == k]
            hit, objects = overlap[chosen] >= iou, hit_object[chosen]
            counted = np.ones(len(chosen), bool)
            counted[hit] = ~is_difficult[objects[hit]]
            first_hits = np.zeros(len(chosen), bool)
            where = np.flatnonzero(hit)
            first_hits[where[np.unique(objects[where], return_index=True)[1]]] = True
            result[name] = eleven_points(first_hits[counted], wanted)
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
