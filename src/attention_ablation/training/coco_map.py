"""COCO's mean average precision, by pycocotools, from detections in memory."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

MAX_DETECTIONS = 100  # an image, as in COCO's own figures


def coco_map(
    predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return map (at IoU .5 to .95 by .05), map_50 and map_75: 0 to 1, means over the classes.

    One prediction and one target for each image, of tensors on the CPU or of arrays:
    predictions: boxes (n, 4) x0, y0, x1, y1, scores (n,), labels (n,).
    targets: boxes (m, 4), labels (m,) and, where there are any, crowd (m,) bool, which are neither
    found nor missed. Classes without an object are left out; without any, ValueError is raised.
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


def _coco(images: Sequence[Mapping[str, Any]], scores: Sequence[list[float] | None]) -> COCO:
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
    dataset: Any = {
        "images": [{"id": i} for i in range(len(images))],
        "categories": [{"id": label} for label in sorted(labels)],
        "annotations": annotations,
    }
    coco = COCO()
    coco.dataset = dataset
    return coco
