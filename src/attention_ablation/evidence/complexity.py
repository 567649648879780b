"""Parameters and GFLOPs of the paper's full-size networks, beside what the paper prints."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from attention_ablation.base.errors import UserError, brief
from attention_ablation.base.io import Missing, read_text, write_text
from attention_ablation.detectors.record import Detector
from attention_ablation.evidence.gain import starting_gain
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from attention_ablation.spec.spec import AnySpec, DetectionSpec, FrontEndSpec
from attention_ablation.study.config import Row, Study
from attention_ablation.study.expand import Plan
from attention_ablation.study.metrics import CountedOn, CountSize

if TYPE_CHECKING:
    from torch import nn

COMPLEXITY_CSV = "complexity.csv"
FULL_SIZE = CountedOn()
OPTIONAL = ("starting_gain", "time_over_bare")  # columns of the file where they are known
MATCH, MISMATCH, NOT_PRINTED = "match", "MISMATCH", "not printed"


@dataclass(frozen=True)
class Complexity:
    """A network's parameters, and multiply-accumulates of one image in 1e9; not of detectors.

    Theirs depend on what is in the image, and the paper prints none.
    """

    params: int
    gflops: Decimal | None


@dataclass(frozen=True)
class Counted:
    """A row's line of complexity.csv: counted, and as printed, where '' is nothing.

    verdict: 'match' where every printed cell agrees when rounded to its digits, or the name of the
    discrepancy that explains it, 'MISMATCH' where none does, 'not printed' where none is printed.
    """

    table: str
    row: str
    label: str
    backbone: str
    attention: str
    params: int
    params_m_paper: str
    gflops: Decimal | None
    gflops_paper: str
    verdict: str
    starting_gain: float | None = None  # where the study shows it
    time_over_bare: float | None = None  # where the study has it

    @property
    def values(self) -> dict[str, float | None]:
        """Its numbers by a metric's source: parameters in 1e6, multiply-accumulates in 1e9."""
        gflops = None if self.gflops is None else float(self.gflops)
        sizes = {"params_m": self.params / 1e6, "gflops": gflops}
        return {**sizes, **{name: getattr(self, name) for name in OPTIONAL}}


Counts = dict[tuple[str, str], Counted]  # by table and row


@cache
def measure(
    backbone: Backbone,
    attention: Attention,
    size: CountSize = FULL_SIZE,
    detector: Detector | None = None,
) -> Complexity:
    """Count a network: as in the paper, the operations of convolutions and linear layers only."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = _build(backbone, attention, size, detector)
    params = sum(p.numel() for p in model.parameters())
    if detector is not None:
        return Complexity(params, None)
    image = torch.empty(1, 3, size.image_size, size.image_size, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(image)
    macs = counter.get_total_flops() // 2  # the counter has two operations for each
    return Complexity(params, Decimal(macs).scaleb(-9))


@cache
def count_params(spec: AnySpec) -> int:
    """Count a run's parameters, at its tier's width and classes."""
    data = spec.recipe.dataset
    size = CountSize(classes=data.classes, image_size=data.image_size)
    if isinstance(spec, FrontEndSpec):
        from attention_ablation.networks.build import build_front_end

        model = build_front_end()
    else:
        detector = spec.detector if isinstance(spec, DetectionSpec) else None
        model = _build(spec.backbone, spec.attention, size, detector)
    return sum(p.numel() for p in model.parameters())


def _build(
    backbone: Backbone, attention: Attention, size: CountSize, detector: Detector | None
) -> "nn.Module":
    import torch

    from attention_ablation.networks.build import build

    with torch.device("meta"):
        if detector is None:
            return build(backbone, attention, size.classes, size.image_size)
        # Imported here: torchvision's detection package takes a while, and few need it.
        from attention_ablation.detectors.build import build_detector

        return build_detector(detector, backbone, attention, size.classes, size.image_size)


def measure_row(study: Study, row: Row) -> Complexity:
    """Count the network of a row as the paper has it, whatever the tier."""
    # What a gate starts as, and how it is trained, change no count.
    started = {"start": None, "method": None}
    backbone = Backbone(name=row.backbone, front_end=row.front_end)
    attention = study.attentions[row.attention].model_copy(update=started)
    detector = Detector(name=row.detector) if row.detector else None
    try:
        return measure(backbone, attention, study.counted_on.size(row.detector), detector)
    except Exception as error:
        if isinstance(error, UserError) or attention.module_file is None:
            raise
        # A gate of a user's own, of which torch's frames say nothing.
        raise UserError(
            f"{row.table}:{row.key}: its network cannot be counted: {brief(error).rstrip('.')}. "
            f"`attention-ablation check {attention.module}` says what to mend."
        ) from None


def count_rows(study: Study) -> list[Counted]:
    """Count the network of every row of the study."""
    rows, times = {row.network: row for row in study.rows}, study.step_times
    measured = {network: measure_row(study, row) for network, row in rows.items()}
    return [
        Counted(
            *(row.table, row.key, row.label, row.backbone, row.attention),
            params=measured[row.network].params,
            params_m_paper=row.printed.get("params_m", ""),
            gflops=measured[row.network].gflops,
            gflops_paper=row.printed.get("gflops", ""),
            verdict=compare(study, row, measured[row.network]),
            starting_gain=_gain(study, row),
            time_over_bare=None
            if row.detector or row.front_end
            else times.get((row.backbone, row.attention)),
        )
        for row in study.rows
    ]


def _gain(study: Study, row: Row) -> float | None:
    shown = {study.metrics[name].source for name in study.tables[row.table].columns}
    if row.detector or "starting_gain" not in shown:
        return None
    return round(starting_gain(Backbone(name=row.backbone), study.attentions[row.attention]), 3)


def compare(study: Study, row: Row, ours: Complexity) -> str:
    """Return the verdict on what the paper prints of a row's network, see `Counted`."""
    verdicts = [verdict for found in _verdicts(study, row, ours).values() for verdict in found]
    if MISMATCH in verdicts:
        return MISMATCH
    odd = [verdict for verdict in verdicts if verdict != MATCH]
    return "; ".join(dict.fromkeys(odd or verdicts)) or NOT_PRINTED


def unexplained(study: Study, counted: Counted) -> list[str]:
    """Return the metrics for which a counted row is a mismatch."""
    (row,) = [row for row in study.table_rows(counted.table) if row.key == counted.row]
    found = _verdicts(study, row, Complexity(counted.params, counted.gflops))
    return [metric for metric, verdicts in found.items() if MISMATCH in verdicts]


def _verdicts(study: Study, row: Row, ours: Complexity) -> dict[str, list[str]]:
    """Return by metric that it matches, what explains that it does not, or that nothing does."""
    values = {"params_m": Decimal(ours.params).scaleb(-6), "gflops": ours.gflops}
    verdicts: dict[str, list[str]] = {}
    for metric, value in values.items():
        if metric in row.printed:
            printed = Decimal(row.printed[metric])
            match = value is not None and value.quantize(printed, ROUND_HALF_UP) == printed
            verdicts[metric] = [MATCH] if match else study.explaining(row, metric) or [MISMATCH]
    return verdicts


def complexity_csv(counted: Iterable[Counted]) -> str:
    frame = pd.DataFrame([vars(line) for line in counted])
    frame["gflops"] = [None if gflops is None else f"{gflops:.6f}" for gflops in frame["gflops"]]
    frame = frame.drop(columns=[name for name in OPTIONAL if frame[name].isna().all()])
    return frame.to_csv(index=False)


def write_complexity(plan: Plan) -> None:
    """Count the networks of the plan's study, and write `complexity.csv`."""
    write_text(plan.folder / COMPLEXITY_CSV, complexity_csv(count_rows(plan.study)))


def read_counts(plan: Plan) -> Counts:
    """Return the lines of complexity.csv, none where it is missing, or raise UserError."""
    path = plan.folder / COMPLEXITY_CSV
    try:
        lines = csv.DictReader(io.StringIO(read_text(path)))
        found = []
        for line in lines:
            texts: dict[str, Any] = {
                field.name: line.get(field.name, "") for field in fields(Counted)
            }
            texts["params"] = int(line["params"])
            texts["gflops"] = Decimal(line["gflops"]) if line["gflops"] else None
            texts |= {name: float(line[name]) if line.get(name) else None for name in OPTIONAL}
            found.append(Counted(**texts))
        counts = {(count.table, count.row): count for count in found}
        if len(counts) == len(found) and {"params", "gflops"} <= set(lines.fieldnames or []):
            return counts
    except Missing:
        return {}
    except (KeyError, TypeError, ValueError, ArithmeticError, csv.Error):
        pass
    raise UserError(
        f"{path}: expected a line for each row, with its size in numbers; "
        "`attention-ablation render complexity` writes it again."
    )
