"""The paper's claims on published training curves: a difference, and never a verdict."""

from collections.abc import Iterator
from decimal import Decimal

from attention_ablation.study.claims import Pair
from attention_ablation.study.expand import Plan
from attention_ablation.study.references import COLUMNS, Reference, read_curve


def differences(plan: Plan, pair: Pair) -> Iterator[tuple[str, float]]:
    """Yield each reference that has curves of both rows, with their difference at the end.

    It is the first row's error less the second's, %, in the last epoch, which is what our runs are
    compared by, too.
    """
    if pair.metric not in COLUMNS:
        return
    for reference in plan.study.references.values():
        first, second = (
            _last(plan, reference, row, pair.metric) for row in (pair.first, pair.second)
        )
        if first is not None and second is not None:
            yield reference.title, float(pair.comparison.difference(first, second))


def _last(plan: Plan, reference: Reference, row: tuple[str, str], metric: str) -> Decimal | None:
    for curve in reference.curves.values():
        if curve.row == ":".join(row):
            read = read_curve(plan.study_folder / curve.file)
            return Decimal(str(read[metric][-1]))
    return None
