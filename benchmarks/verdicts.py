"""How often the ledger is wrong, and how often it decides, on simulated runs.

    python -m benchmarks.verdicts

A ledger is the study's: its comparisons of errors and mAP, of its rows in their groups. Values
scatter around their true means with a standard deviation of 1, of a seed's effect on all rows by
0.5, and correlate by 0.8 between the metrics of a run. A null ledger's rows differ by nothing, or
by exactly the margin, half of them each: a verdict is false where it tells rows apart that are
equal, takes rows for equivalent that differ by the margin, or has the direction wrong.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attention_ablation.evidence.ledger import JudgedPair, adjusted
from attention_ablation.evidence.samples import Sample, alike
from attention_ablation.evidence.statistics import spread_of
from attention_ablation.study.expand import Plan, load_plan

SEEDS = (2, 3, 5)
SETTINGS = ("equal", "unequal", "wild", "skewed", "coarse")
MARGIN = 3.0
SIGMA = 0.8  # of the logarithms of skewed values
STEP = 0.57  # of coarse values: 0.2 points where seeds scatter by 0.35


def scatter(
    generator: np.random.Generator, rows: int, seeds: int, setting: str
) -> NDArray[np.float64]:
    """Draw (rows, seeds) values around 0.

    Their standard deviation is 1; unequal: between 1/2 and 2; wild: 6 of two rows in five.
    """
    values = generator.standard_normal((rows, seeds))
    if setting == "skewed":
        raw, square = np.exp(SIGMA * values), np.exp(SIGMA**2)
        values = (raw - np.sqrt(square)) / np.sqrt((square - 1) * square)
    if setting == "unequal":
        values *= 2 ** generator.uniform(-1, 1, (rows, 1))
    if setting == "wild":
        values *= np.where(generator.random((rows, 1)) < 0.4, 6, 1)
    return values


class Simulation:
    """A study's comparisons of trained numbers that say less or greater, with the margin."""

    def __init__(self, plan: Plan) -> None:
        self.ids = sorted({spec.run_id for spec in plan.specs.values()})
        like, place = alike(plan), {id_: n for n, id_ in enumerate(self.ids)}
        rows = {row: place[spec.run_id] for row, spec in plan.specs.items()}
        self.pairs = [
            replace(pair, comparison=pair.comparison.model_copy(update={"margin": MARGIN}))
            for claim in plan.study.claims.values()
            for pair in claim.pairs()
            if not plan.study.metrics[pair.metric].counted and pair.comparison.directed
        ]
        self.rows = {row: (n, [rows[other] for other in like[row]]) for row, n in rows.items()}

    def draw(
        self,
        generator: np.random.Generator,
        seeds: int,
        setting: str = "equal",
        shift: float = 0.0,
        *,
        pooled: bool = True,
    ) -> list[tuple[JudgedPair, float]]:
        """Draw a ledger in which half of the runs are `shift` above the rest.

        Returns its comparisons, each with the true difference. With `pooled` false a comparison
        knows only its own spread.
        """
        count = len(self.ids)
        truth = shift * generator.permutation(np.arange(count) % 2)
        main = scatter(generator, count, seeds, setting)
        values: dict[str, NDArray[np.float64]] = {}
        found, truths = [], []
        for pair in self.pairs:
            if pair.metric not in values:
                noise = 0.8 * main + 0.6 * scatter(generator, count, seeds, setting)
                drawn = noise + 0.5 * generator.standard_normal(seeds) + truth[:, None]
                coarse = setting == "coarse"
                values[pair.metric] = STEP * np.round(drawn / STEP) if coarse else drawn
            runs = values[pair.metric]
            (first, like), (second, _) = self.rows[pair.first], self.rows[pair.second]
            difference = runs[first] - runs[second]
            others = [row for row in like if row not in (first, second)] if pooled else []
            spread = spread_of(runs[[first, second]], runs[others])
            asked = (*sorted((first, second)), pair.metric)
            sample = Sample(tuple(difference.tolist()), spread, hypothesis=asked)
            found.append(JudgedPair(pair, sample))
            truths.append(float(truth[first] - truth[second]))
        return list(zip(adjusted(found), truths, strict=True))


def is_false(found: JudgedPair, truth: float) -> bool:
    """Whether a verdict is not true."""
    if found.verdict == "equivalent":
        return abs(truth) >= MARGIN
    low, high = map(float, found.pair.comparison.bounds)
    holds = low < truth < high
    said = {"supported": holds, "contradicted": not holds and truth != 0}
    return not said.get(found.verdict, True)


def false_ledgers(
    simulation: Simulation, ledgers: int, seeds: int, setting: str, shift: float
) -> int:
    """Return how many of so many null ledgers have one or more false verdicts."""
    generator = np.random.default_rng(0)
    draws = (simulation.draw(generator, seeds, setting, shift) for _ in range(ledgers))
    return sum(any(is_false(*each) for each in draw) for draw in draws)


def decided(simulation: Simulation, ledgers: int, seeds: int, shift: float, pooled: bool) -> float:
    """Return the share of comparisons of rows apart by `shift` that get a verdict."""
    generator = np.random.default_rng(1)
    found = [
        judged.verdict != "undecided"
        for _ in range(ledgers)
        for judged, truth in simulation.draw(generator, seeds, shift=shift, pooled=pooled)
        if abs(truth) == shift
    ]
    return float(np.mean(found))


def main() -> None:
    ledgers = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    simulation = Simulation(load_plan({"study": "cbam", "tier": "quick"}, Path()))
    print("| spreads | seeds | rows equal | rows equal or apart by the margin |\n|---|--:|--:|--:|")
    for setting in SETTINGS:
        for seeds in SEEDS:
            counts = [
                false_ledgers(simulation, ledgers, seeds, setting, shift) for shift in (0, MARGIN)
            ]
            cells = " | ".join(f"{100 * count / ledgers:.1f} %" for count in counts)
            print(f"| {setting} | {seeds} | {cells} |", flush=True)
    print("\n| rows apart by | seeds | decided, own spread | decided, pooled |\n|--:|--:|--:|--:|")
    for seeds in SEEDS:
        for shift in (0.0, 2.0, 4.0, 6.0):
            shares = [
                decided(simulation, max(ledgers // 20, 1), seeds, shift, pooled)
                for pooled in (False, True)
            ]
            cells = " | ".join(f"{100 * share:.0f} %" for share in shares)
            print(f"| {shift:g} | {seeds} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
