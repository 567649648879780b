"""Rows that are compared must differ in what their table varies, and in nothing else.

A table varies its rows' backbone and gate. What a tier chooses for them, and what trained them,
must be the same for all rows of a group.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from attention_ablation.base.errors import UserError, few
from attention_ablation.detectors.record import gates_in_backbone
from attention_ablation.gates.record import Attention
from attention_ablation.spec.spec import Spec
from attention_ablation.study.config import DetectionSizing, Row, Sizing

if TYPE_CHECKING:
    from attention_ablation.study.expand import Plan

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


def check_comparisons(plan: "Plan") -> None:
    """Raise UserError where a table's group, a figure's panel or a claim has unequal recipes."""
    compared = [
        (table, group, "or compare within each backbone (the table's group_by)")
        for table in plan.tables
        for group in plan.groups(table)
    ]
    for name in plan.figures:
        for title, rows in plan.study.figures[name].compared(plan):
            compared.append((f"{name}, {title}", rows, "or draw them in panels of their own"))
    chosen_for = cache(lambda row: _row_facts(row, plan))
    for name, rows, instead in compared:
        remedy = f"Make them equal there, {instead} in {plan.study_folder / 'study.yaml'}."
        facts = {row.key: chosen_for(row) for row in rows}
        check_recipes(facts, f"{plan.tier_file}: {name}", remedy)
    by_place = {(row.table, row.key): row for row in plan.study.rows}
    for name, pair in _claimed(plan):
        facts = {f"{table}:{key}": chosen_for(by_place[table, key]) for table, key in pair}
        # One network at two values of what its table varies is what that table is for.
        if len({by_place[place].network for place in pair}) == 1:
            facts = {place: found | {"multiplied": None} for place, found in facts.items()}
        remedy = f"Compare rows of one recipe in {plan.study_folder / 'claims.yaml'}."
        check_recipes(facts, f"{plan.tier_file}: claims.{name}", remedy)


def _claimed(plan: "Plan") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield a claim's name and two rows for all differences of trainings that claims are about."""
    for name, claim in plan.study.claims.items():
        for pair in claim.pairs():
            for rows in filter(None, (pair.rows[:2], pair.rows[2:])):
                trained = not plan.study.metrics[pair.metric].counted
                if trained and all(place in plan.specs for place in rows):
                    yield name, rows


def _row_facts(row: Row, plan: "Plan") -> dict[str, Any]:
    """Return what the tier chooses for a row, by its dotted keys there."""
    spec, gate = plan.specs[row.table, row.key], plan.study.attentions[row.attention]
    sized = plan.tier.classification.sizing(row.backbone)
    if isinstance(spec, Spec):
        return chosen(sized, gate, "classification") | _table_facts(row, plan, "classification")
    detection = plan.tier.detection[spec.detector.name].sizing(row.backbone)
    inside = gates_in_backbone(spec.detector)
    found = chosen(detection, Attention() if inside else gate, "detection")
    if spec.initial:
        found |= chosen(sized, gate if inside else Attention(), "classification")
    return found | _table_facts(row, plan, "detection")


def _table_facts(row: Row, plan: "Plan", task: str) -> dict[str, Any]:
    table, times = plan.study.tables[row.table], row.times or 1
    found = {f"{task}.recipe.{key}": value for key, value in table.recipe.items()}
    return found | {"multiplied": "nothing" if times == 1 else f"{table.varies} by {times:g}"}


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
