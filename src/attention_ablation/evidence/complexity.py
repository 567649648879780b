"""Parameters and GFLOPs of the paper's full-size networks, beside what the paper prints."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from attention_ablation.base.io import write_text
from attention_ablation.detectors.record import Detector
from attention_ablation.detectors.shapes import PAPER_DATA
from attention_ablation.evidence.counted import COLUMNS, COMPLEXITY_CSV
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build
from attention_ablation.networks.record import Backbone
from attention_ablation.spec.spec import DetectionSpec, Spec
from attention_ablation.study.config import Row, Study
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import COUNTED

IMAGE_SIZE, CLASSES = 224, 1000
MATCH, MISMATCH, NOT_PRINTED = "match", "MISMATCH", "not printed"


@dataclass(frozen=True)
class Complexity:
    """A network's size: parameters, and multiply-accumulates of one 224 px image in 1e9.

    Detectors have none, because theirs depend on what is in the image and the paper prints none.
    """

    params: int
    gflops: Decimal | None


def measure(backbone: Backbone, attention: Attention) -> Complexity:
    """Count a network at 3x224x224 and 1000 classes, on the meta device.

    GFLOPs are multiply-accumulates of convolutions and linear layers, as in the paper; nothing
    counts for normalisation, activations, pooling and additions.
    """
    with torch.device("meta"):
        model = build(backbone, attention, CLASSES).eval()
        image = torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    params = sum(p.numel() for p in model.parameters())
    macs = counter.get_total_flops() // 2  # the counter has two operations for each
    return Complexity(params, Decimal(macs).scaleb(-9))


def measure_detector(detector: Detector, backbone: Backbone, attention: Attention) -> Complexity:
    """Count a detector with the classes of the paper's data set, on the meta device."""
    return Complexity(_count(backbone, attention, *PAPER_DATA[detector.name], detector), None)


def count_params(spec: Spec | DetectionSpec) -> int:
    """Count a run's parameters, at its tier's width and classes."""
    dataset = spec.recipe.dataset
    detector = spec.detector if isinstance(spec, DetectionSpec) else None
    return _count(spec.backbone, spec.attention, dataset.classes, dataset.image_size, detector)


@cache
def _count(
    backbone: Backbone,
    attention: Attention,
    classes: int,
    image_size: int,
    detector: Detector | None,
) -> int:
    with torch.device("meta"):
        if detector is None:
            model = build(backbone, attention, classes)
        else:
            # Imported here: torchvision's detection package takes a while, and few need it.
            from attention_ablation.detectors.build import build_detector

            model = build_detector(detector, backbone, attention, classes, image_size)
    return sum(p.numel() for p in model.parameters())


def complexity_rows(study: Study) -> Iterator[tuple[Row, Complexity, str]]:
    """Yield every row of the study with its network's complexity and the verdict on it.

    The verdict is 'match' where every printed cell agrees when rounded to its printed digits,
    the discrepancy's name where study.yaml lists it, 'MISMATCH' where nothing explains it, and
    'not printed' where the paper prints neither.
    """
    measured: dict[str, Complexity] = {}
    for row in study.rows:
        if row.key not in measured:
            measured[row.key] = measure_row(study, row)
        yield row, measured[row.key], _verdict(study, row, measured[row.key])


def complexity_table(study: Study) -> list[list[str]]:
    """Return a line for every row of the study, in the columns of complexity.csv."""
    return [
        [
            *(row.table, row.key, row.label, row.backbone, row.attention, str(ours.params)),
            row.printed.get("params_m", ""),
            "" if ours.gflops is None else f"{ours.gflops:.6f}",
            row.printed.get("gflops", ""),
            verdict,
        ]
        for row, ours, verdict in complexity_rows(study)
    ]


def complexity_csv(study: Study) -> str:
    """Return the text of complexity.csv."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *complexity_table(study)])
    return text.getvalue()


def write_complexity(plan: Plan) -> None:
    """Count the networks of the plan's study, and write `complexity.csv`."""
    write_text(plan.folder / COMPLEXITY_CSV, complexity_csv(plan.study))


def measure_row(study: Study, row: Row) -> Complexity:
    """Count the network of a row as the paper has it, whatever the tier."""
    backbone, attention = Backbone(name=row.backbone), study.attentions[row.attention]
    if row.detector is None:
        return measure(backbone, attention)
    return measure_detector(Detector(name=row.detector), backbone, attention)


def _verdict(study: Study, row: Row, ours: Complexity) -> str:
    values = {"params_m": Decimal(ours.params).scaleb(-6)}
    if ours.gflops is not None:
        values["gflops"] = ours.gflops
    printed = {metric: row.printed[metric] for metric in COUNTED if metric in row.printed}
    names = []
    for metric, text in printed.items():
        if metric in values and values[metric].quantize(Decimal(text), ROUND_HALF_UP) == Decimal(
            text
        ):
            continue
        explained = [
            name
            for name, d in study.discrepancies.items()
            if d.table == row.table and row.key in d.rows and metric in d.metrics
        ]
        names += explained or [MISMATCH]
    if MISMATCH in names:
        return MISMATCH
    return "; ".join(dict.fromkeys(names)) or (MATCH if printed else NOT_PRINTED)
