"""Parameters and GFLOPs of the paper's full-size networks, beside what the paper prints."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from attention_ablation.models.build import build
from attention_ablation.study.config import Row, Study
from attention_ablation.study.expand import full_size_spec
from attention_ablation.study.spec import Attention, Backbone, Spec

IMAGE_SIZE, CLASSES = 224, 1000
MATCH, MISMATCH, NOT_PRINTED = "match", "MISMATCH", "not printed"


@dataclass(frozen=True)
class Complexity:
    """A network's size: parameters, and multiply-accumulates of one 224 px image in 1e9."""

    params: int
    gflops: Decimal


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


def count_params(spec: Spec) -> int:
    """Count a run's parameters, at its tier's width and classes."""
    return _count(spec.backbone, spec.attention, spec.recipe.dataset.classes)


@cache
def _count(backbone: Backbone, attention: Attention, classes: int) -> int:
    with torch.device("meta"):
        model = build(backbone, attention, classes)
    return sum(p.numel() for p in model.parameters())


def complexity_rows(study: Study) -> Iterator[tuple[Row, Complexity, str]]:
    """Yield every row of the study with its network's complexity and the verdict on it.

    The verdict is 'match' where every printed cell agrees when rounded to its printed digits,
    the discrepancy's name where study.yaml lists it, 'MISMATCH' where nothing explains it, and
    'not printed' where the paper prints neither.
    """
    measured: dict[str, Complexity] = {}
    for row in study.rows:
        backbone, attention = full_size_spec(study, row)
        if row.key not in measured:
            measured[row.key] = measure(backbone, attention)
        yield row, measured[row.key], _verdict(study, row, measured[row.key])


def _verdict(study: Study, row: Row, ours: Complexity) -> str:
    values = {"params_m": Decimal(ours.params).scaleb(-6), "gflops": ours.gflops}
    printed = {metric: row.printed[metric] for metric in values if metric in row.printed}
    names = []
    for metric, text in printed.items():
        if values[metric].quantize(Decimal(text), ROUND_HALF_UP) == Decimal(text):
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
