"""Average precision: cases counted by hand, a slow reading of the devkit, pycocotools itself."""

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from attention_ablation.datasets.digits import CLASSES, ClutteredScenes
from attention_ablation.study.expand import load_plan
from attention_ablation.training.detection_metrics import coco_map, voc_map
from tests.conftest import ROOT

Boxes = list[tuple[float, float, float, float]]
A, B, FAR = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def found(boxes: Boxes, scores: list[float], labels: list[int] | None = None) -> dict[str, Any]:
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "labels": np.array(labels or [1] * len(boxes), np.int64),
    }


def there(boxes: Boxes, labels: list[int] | None = None, **flags: list[bool]) -> dict[str, Any]:
    target = {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels or [1] * len(boxes), np.int64),
    }
    return target | {name: np.array(values, bool) for name, values in flags.items()}


def ap(prediction: dict[str, Any], target: dict[str, Any]) -> float:
    return voc_map([prediction], [target], ["thing"])["thing"]


@pytest.mark.parametrize(
    ("boxes", "scores", "expected"),
    [
        ([A, B], [0.9, 0.8], 1),  # all found
        ([FAR, A, B], [0.9, 0.8, 0.7], Fraction(2, 3)),  # precision 0, 1/2, 2/3: best 2/3 at all
        ([A, FAR, B], [0.9, 0.8, 0.7], (6 + 5 * Fraction(2, 3)) / 11),  # 1 up to recall 0.5
        ([A], [0.9], Fraction(6, 11)),  # recalls 0 to 0.5
        ([A, A, B], [0.9, 0.8, 0.7], (6 + 5 * Fraction(2, 3)) / 11),  # the second A is false
        ([A, B, A], [0.9, 0.8, 0.7], 1),  # as is this one, but after all were found
        ([], [], 0),
        ([FAR], [0.9], 0),
        ([(0, 0, 10, 5), B], [0.9, 0.8], 1),  # an IoU of 0.5 is a hit
        ([(0, 0, 10, 4.9), B], [0.9, 0.8], Fraction(6, 11) / 2),  # less is none
    ],
)
def test_voc_by_hand(boxes: Boxes, scores: list[float], expected: Fraction) -> None:
    assert ap(found(boxes, scores), there([A, B])) == pytest.approx(float(expected))


def test_difficult_objects_count_neither_way() -> None:
    target = there([A, B], difficult=[False, True])
    assert ap(found([A], [0.5]), target) == 1  # B is not missed
    assert ap(found([B, B, A], [0.9, 0.8, 0.5]), target) == 1  # nor found, however often
    assert ap(found([FAR, A], [0.9, 0.5]), target) == 0.5


def test_classes_without_objects_are_left_out_and_classes_do_not_mix() -> None:
    targets = [there([A, B], [1, 3], difficult=[False, True]), there([A], [2])]
    predictions = [found([A, B, FAR], [0.9, 0.9, 0.8], [2, 1, 3]), found([A], [0.1], [2])]
    aps = voc_map(predictions, targets, ["cat", "dog", "cow", "ape"])
    # The cow is difficult, and there is no ape. The first 'dog' lies on a cat: false.
    assert aps == {"cat": 0.0, "dog": 0.5}
    assert voc_map([found([A], [1.0])], [there([])], ["cat"]) == {}
    assert voc_map([], [], ["cat"]) == {}


def test_an_object_of_another_image_is_not_hit() -> None:
    aps = voc_map([found([A], [0.9]), found([], [])], [there([]), there([A])], ["thing"])
    assert aps == {"thing": 0.0}


def test_tensors_are_as_good_as_arrays() -> None:
    def tensors(of: dict[str, Any]) -> dict[str, Any]:
        return {name: torch.from_numpy(values) for name, values in of.items()}

    prediction, target = found([A, FAR, B], [0.9, 0.8, 0.7]), there([A, B], crowd=[False, False])
    assert ap(tensors(prediction), tensors(target)) == ap(prediction, target)
    assert coco_map([tensors(prediction)], [tensors(target)]) == coco_map([prediction], [target])


def test_recalls_of_tenths_are_reached() -> None:
    """As fractions 3 / 10 is below 0.1 * 3, and a recall of 0.3 would be lost."""
    boxes: Boxes = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(10)]
    for hits in range(11):
        got = ap(found(boxes[:hits], [0.5] * hits), there(boxes))
        assert got == pytest.approx((hits + 1) / 11 if hits else 0)


corner = st.integers(0, 6)
side = st.integers(1, 5)
boxes_of = st.lists(
    st.tuples(corner, corner, side, side, st.integers(1, 2), st.booleans(), st.integers(0, 99)),
    max_size=6,
)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw detections, all of different scores, and objects of two classes on a few images."""
    predictions, targets = [], []
    for _ in range(draw(st.integers(1, 3))):
        drawn = [draw(boxes_of), draw(boxes_of)]
        boxes = [
            [(float(x), float(y), x + w + 0.0, y + h + 0.0) for x, y, w, h, *_ in d] for d in drawn
        ]
        labels = [[d[4] for d in of] for of in drawn]
        predictions.append(found(boxes[0], [0.0] * len(boxes[0]), labels[0]))
        targets.append(there(boxes[1], labels[1], difficult=[d[5] for d in drawn[1]]))
    total = sum(len(p["scores"]) for p in predictions)
    scores = np.array(draw(st.permutations(range(1, total + 1))), np.float32) / 100
    for prediction in predictions:
        n = len(prediction["scores"])
        prediction["scores"], scores = scores[:n], scores[n:]
    return predictions, targets


def slow_voc(predictions: list[Any], targets: list[Any], label: int) -> float | None:
    """Read VOCevaldet.m and the 11-point rule literally, one detection after the other."""
    wanted = sum(int(((t["labels"] == label) & ~t["difficult"]).sum()) for t in targets)
    if not wanted:
        return None
    detections = [
        (float(score), image, box)
        for image, p in enumerate(predictions)
        for score, box, name in zip(p["scores"], p["boxes"].tolist(), p["labels"], strict=True)
        if name == label
    ]
    taken: set[tuple[int, int]] = set()
    tp = fp = 0
    curve = []
    for _, image, (x0, y0, x1, y1) in sorted(detections, key=lambda d: -d[0]):
        best, which = Fraction(-1), -1
        target = targets[image]
        for k, (u0, v0, u1, v1) in enumerate(target["boxes"].tolist()):
            if target["labels"][k] != label:
                continue
            # VOC's pixels from 1, the last one included: x from x0 + 1 to x1.
            iw = min(x1, u1) - (max(x0, u0) + 1) + 1
            ih = min(y1, v1) - (max(y0, v0) + 1) + 1
            common = int(iw * ih) if iw > 0 and ih > 0 else 0
            union = int((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0)) - common
            if Fraction(common, union) > best:
                best, which = Fraction(common, union), k
        if best >= Fraction(1, 2):
            if target["difficult"][which]:
                continue
            tp, fp = (tp, fp + 1) if (image, which) in taken else (tp + 1, fp)
            taken.add((image, which))
        else:
            fp += 1
        curve.append((Fraction(tp, wanted), Fraction(tp, tp + fp)))
    points = [max((p for r, p in curve if r >= Fraction(t, 10)), default=0) for t in range(11)]
    return float(sum(map(Fraction, points)) / 11)


@given(scenes())
@settings(max_examples=300)
def test_voc_is_what_the_devkit_computes(case: tuple[list[Any], list[Any]]) -> None:
    aps = voc_map(*case, ["one", "two"])
    for label, name in enumerate(["one", "two"], start=1):
        slow = slow_voc(*case, label)
        assert (name in aps) == (slow is not None)
        if slow is not None:
            assert aps[name] == pytest.approx(slow)


@given(scenes(), st.sampled_from([lambda s: s / 3, lambda s: s**3, lambda s: 5 * s - 7, np.exp]))
@settings(max_examples=100)
def test_only_the_order_of_scores_counts(case: tuple[list[Any], list[Any]], rescale: Any) -> None:
    predictions, targets = case
    others = [p | {"scores": rescale(p["scores"].astype(np.float64))} for p in predictions]
    assert voc_map(others, targets, ["one", "two"]) == voc_map(predictions, targets, ["one", "two"])


@given(scenes(), st.integers(1, 2))
@settings(max_examples=100)
def test_a_last_false_positive_never_raises(case: tuple[list[Any], list[Any]], label: int) -> None:
    predictions, targets = case
    before = voc_map(predictions, targets, ["one", "two"])
    extra = found([FAR], [-1.0], [label])
    first = {name: np.concatenate([predictions[0][name], extra[name]]) for name in extra}
    after = voc_map([first, *predictions[1:]], targets, ["one", "two"])
    assert after == pytest.approx(before)  # it comes after all recall was reached
    # As the first of all it never helps.
    first["scores"] = np.append(predictions[0]["scores"], np.float32(2))
    worse = voc_map([first, *predictions[1:]], targets, ["one", "two"])
    assert all(worse[name] <= before[name] + 1e-12 for name in before)


def noisy(seed: int, jitter: float, images: int = 150) -> tuple[list[Any], list[Any]]:
    """Return detections as of a detector that finds most objects, not quite in their place."""
    random = np.random.default_rng(seed)
    predictions, targets = [], []
    for _ in range(images):
        n = int(random.integers(1, 6))
        corners = random.uniform(0, 200, (n, 2))
        boxes = np.hstack([corners, corners + random.uniform(20, 80, (n, 2))])
        labels = random.integers(1, 5, n)
        targets.append({"boxes": boxes, "labels": labels})
        moved = boxes + random.normal(0, jitter, boxes.shape)
        false = int(random.integers(0, 4))
        places = random.uniform(0, 200, (false, 2))
        predictions.append(
            {
                "boxes": np.vstack([moved, np.hstack([places, places + 40])]),
                "scores": np.concatenate([random.beta(4, 2, n), random.beta(2, 3, false)]),
                "labels": np.concatenate([labels, random.integers(1, 5, false)]),
            }
        )
    return predictions, targets


@pytest.mark.parametrize("jitter", [2.0, 5.0, 8.0])
def test_eleven_points_are_near_cocos_hundred_and_one(jitter: float) -> None:
    predictions, targets = noisy(0, jitter)
    eleven = np.mean(list(voc_map(predictions, targets, ["a", "b", "c", "d"]).values()))
    coco = coco_map(predictions, targets)
    assert 0.2 < eleven < 1
    assert eleven == pytest.approx(coco["map_50"], abs=0.03)
    assert coco["map"] < coco["map_50"]
    assert coco["map_75"] < coco["map_50"]


def test_coco_is_what_pycocotools_says_of_the_same_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    predictions, targets = noisy(1, 4.0, images=40)
    for target in targets[::3]:
        target["crowd"] = np.arange(len(target["labels"])) == 0
    figures = coco_map(predictions, targets)
    assert capfd.readouterr().out == ""

    def xywh(box: np.ndarray) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    annotations: list[dict[str, Any]] = [
        {"image_id": i, "category_id": int(label), "bbox": xywh(box), "iscrowd": int(crowd)}
        for i, t in enumerate(targets)
        for box, label, crowd in zip(
            t["boxes"], t["labels"], t.get("crowd", np.zeros(9, bool)), strict=False
        )
    ]
    for number, annotation in enumerate(annotations, start=1):
        area = annotation["bbox"][2] * annotation["bbox"][3]
        annotation |= {"id": number, "area": area}
    truth = {
        "images": [{"id": i} for i in range(len(targets))],
        "categories": [{"id": k} for k in range(1, 5)],
        "annotations": annotations,
    }
    results = [
        {"image_id": i, "category_id": int(label), "bbox": xywh(box), "score": float(score)}
        for i, p in enumerate(predictions)
        for box, label, score in zip(p["boxes"], p["labels"], p["scores"], strict=True)
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    coco = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert list(figures) == ["map", "map_50", "map_75"]
    assert list(figures.values()) == pytest.approx(evaluation.stats[:3].tolist(), abs=1e-12)
    assert 0.1 < figures["map"] < figures["map_50"] < 1


def test_coco_by_hand() -> None:
    perfect = coco_map([found([A, B], [0.9, 0.8])], [there([A, B])])
    assert perfect == pytest.approx({"map": 1, "map_50": 1, "map_75": 1})
    # An IoU of 0.62 is a hit at .5, .55 and .6 only.
    near = coco_map([found([(0, 0, 10, 6.2)], [0.9])], [there([A])])
    assert near == pytest.approx({"map": 0.3, "map_50": 1, "map_75": 0})
    nothing = coco_map([found([], [])], [there([A])])
    assert nothing == pytest.approx({"map": 0, "map_50": 0, "map_75": 0})
    # A detection inside a crowd counts neither way; a class without an object is left out.
    crowd = there([A, B], crowd=[False, True])
    inside = found([(22, 2, 28, 8), A, FAR], [0.9, 0.8, 0.7], [1, 1, 2])
    assert coco_map([inside], [crowd])["map_50"] == pytest.approx(1)
    with pytest.raises(ValueError, match="at least one object"):
        coco_map([found([A], [0.9])], [there([])])


@pytest.mark.parametrize(
    ("table", "row"), [("table6", "resnet50+faster-rcnn"), ("table7", "vgg16+ssd")]
)
def test_chance_is_what_the_quick_tier_says(table: str, row: str) -> None:
    plan = load_plan({"study": "cbam", "tier": "quick", "tables": [table]}, ROOT)
    dataset = plan.specs[table, row].recipe.dataset
    assert isinstance(dataset, ClutteredScenes)
    scenes = dataset.compose("validation", range(dataset.validation_images))
    scores = np.random.default_rng(0)
    predictions, targets = [], []
    for first, last in pairwise(scenes.starts):
        boxes = scenes.boxes[first:last].astype(np.float32)
        targets.append({"boxes": boxes, "labels": scenes.labels[first:last]})
        every_class = {
            "boxes": np.repeat(boxes, 10, axis=0),
            "labels": np.tile(range(1, 11), len(boxes)),
        }
        predictions.append(every_class | {"scores": scores.random(10 * len(boxes), np.float32)})
    metric = (
        coco_map(predictions, targets)["map_50"]
        if table == "table6"
        else np.mean(list(voc_map(predictions, targets, CLASSES).values()))
    )
    assert 100 * metric == pytest.approx(12, abs=1.5)
    assert "12 % mAP@.5 with all true boxes given" in plan.tier.limits
