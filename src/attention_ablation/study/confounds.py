"""Rows that are compared must differ in what their table varies, and in nothing else.

A table varies its rows' backbone and gate. What a tier chooses for them, and what trained them,
must be the same for all rows of a group.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from attention_ablation.base.errors import UserError, few
from attention_ablation.gates.record import Attention
from attention_ablation.study.config import DetectionSizing, Sizing

# Facts of a finished training that change its numbers: BatchNorm's statistics are of each process's
# part of a batch, and other images are another experiment.
CHANGES_NUMBERS = ("processes", "dataset_fingerprint")
# Those that should not by more than rounding and the order of sums do, but may explain a surprise.
NOTED = (
    *("git_commit", "git_dirty", "attention_ablation", "python", "torch", "torchvision", "numpy"),
    *("device", "threads"),
)
OF_GATES = (".reduction", ".start")  # what a tier chooses for gates only
Facts = Mapping[str, Mapping[str, Any]]  # of each row: values by key


def chosen(sizing: Sizing | DetectionSizing, attention: Attention, task: str) -> dict[str, Any]:
    """Return what a tier chooses for a row, by the dotted key under which it stands there.

    `attention` is the study's gate, of which the tier changes what the study leaves open.
    """
    data = sizing.model_dump(mode="json", exclude={"backbones", "front_end"})
    if attention.ratio is None:
        del data["reduction"]  # there is no MLP that it could change
    if attention.start or not attention.has_start:
        del data["start"]
    return flatten(data, f"{task}.")


def check_recipes(rows: Facts, where: str, remedy: str) -> None:
    """Raise UserError, which ends with `remedy`, where compared rows have not the same `chosen`."""
    keys = dict.fromkeys(key for facts in rows.values() for key in facts)
    full = {
        # A schedule's keys depend on its name; a row without a gate has none of a gate's.
        name: {k: facts.get(k, "unset") for k in keys if k in facts or not k.endswith(OF_GATES)}
        for name, facts in rows.items()
    }
    if lines := differing(full):
        found = "".join(f"\n  {line}" for line in lines)
        raise UserError(
            f"{where}: expected the same for all rows that are compared, got{found}\n{remedy}"
        )


def differing(rows: Facts) -> list[str]:
    """Return a line for each key that has several values: `epochs: 5 for a, b; 6 for c`."""
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, facts in rows.items():
        for key, value in facts.items():
            names[key]["null" if value is None else str(value)].append(name)
    return [
        f"{key}: " + "; ".join(f"{value} for {few(having, 4)}" for value, having in values.items())
        for key, values in names.items()
        if len(values) > 1
    ]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
