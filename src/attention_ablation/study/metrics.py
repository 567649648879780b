"""The columns that a table may have: headings, units, and which way is better."""

from dataclasses import dataclass
from typing import Literal, get_args

Metric = Literal[
    "params_m", "gflops", "top1_error", "top5_error", "map_50", "map_75", "map"
]  # fmt: skip
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True)
class Kind:
    """A metric's heading, with its unit, and what it is measured on; None where it is counted."""

    heading: str
    task: Literal["classification", "detection"] | None = None

    @property
    def counted(self) -> bool:
        """Whether it is counted on the full-size network: exact, the same for every seed."""
        return self.task is None

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better; for what is not counted, less is where it is not."""
        return self.task == "detection"


KINDS: dict[Metric, Kind] = {
    "params_m": Kind("Params (M)"),
    "gflops": Kind("GFLOPs"),
    "top1_error": Kind("Top-1 error (%)", "classification"),
    "top5_error": Kind("Top-5 error (%)", "classification"),
    "map_50": Kind("mAP@.5 (%)", "detection"),
    "map_75": Kind("mAP@.75 (%)", "detection"),
    "map": Kind("mAP@[.5, .95] (%)", "detection"),
}
COUNTED: tuple[Metric, ...] = tuple(name for name in METRICS if KINDS[name].counted)
MEASURED: tuple[Metric, ...] = tuple(name for name in METRICS if not KINDS[name].counted)
