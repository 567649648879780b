"""What a plan costs before it is started: hours, the order that follows, and limits of jobs."""

import heapq
import math
from dataclasses import dataclass
from functools import cached_property

from attention_ablation.base.errors import UserError, require
from attention_ablation.cost.rates import (
    PUBLISHED,
    Calibration,
    PublishedRates,
    fastest,
    load_calibration,
    load_published,
    network_key,
)
from attention_ablation.runs.folder import read_outcome, steps_saved
from attention_ablation.spec.spec import AnySpec
from attention_ablation.study.expand import Plan

# A forward pass is a third of a step: the backward pass has two products for its one.
EVALUATION_SHARE = 1 / 3
# A job's limits, over what is estimated for it.
TIME_MARGIN, TIME_EXTRA_MINUTES = 1.5, 30
UNKNOWN_MINUTES = 24 * 60
MEMORY_MARGIN, LEAST_MEMORY_MB = 1.5, 4000
SHORT_HOURS = 0.25  # of a run, whose start of some seconds is then worth a word


@dataclass(frozen=True)
class Cost:
    """A plan and how fast its networks train. Hours are of a device, and by a run's folder."""

    plan: Plan
    rates: Calibration | PublishedRates

    def hours(self, spec: AnySpec) -> float | None:
        """Return what a training takes, None where its rate is not known."""
        rate = self.rates.images_per_second(spec)
        return None if rate is None else _hours(spec, rate)

    def minutes(self, spec: AnySpec) -> int:
        """Return a time limit for a training's job."""
        hours = self.hours(spec)
        if hours is None:
            return UNKNOWN_MINUTES
        return math.ceil(60 * TIME_MARGIN * hours) + TIME_EXTRA_MINUTES

    @property
    def memory_mb(self) -> int:
        """A memory limit for a training's job, MB of host memory."""
        return max(LEAST_MEMORY_MB, math.ceil(MEMORY_MARGIN * self.rates.memory_mb))

    @cached_property
    def run_hours(self) -> dict[str, float]:
        """The hours of every run; 0 where they are not known."""
        return {path: self.hours(run.spec) or 0.0 for path, run in self.plan.runs.items()}

    @cached_property
    def unknown(self) -> list[str]:
        """The runs whose rate is not known."""
        return [path for path, hours in self.run_hours.items() if not hours]

    @property
    def all_short(self) -> bool:
        """Whether every run takes minutes only, as far as is known."""
        return max(self.urgency.values()) < SHORT_HOURS

    @cached_property
    def urgency(self) -> dict[str, float]:
        """The hours of every run and of the longest that starts from it.

        A run whose rate is not known counts with the least that it can take.
        """
        urgency = {
            path: hours or _hours(spec := self.plan.runs[path].spec, fastest(spec))
            for path, hours in self.run_hours.items()
        }
        after = dict.fromkeys(urgency, 0.0)
        for path, run in self.plan.runs.items():
            if run.initial:
                first = run.initial.path
                after[first] = max(after[first], urgency[path])
        return {path: hours + after[path] for path, hours in urgency.items()}

    @cached_property
    def order(self) -> list[str]:
        """The runs as they are started.

        Those of the first table, so that there is soon one to look at; then the most urgent, so
        that no device is left alone with one at the end.
        """
        runs = self.plan.table_runs(self.plan.tables[0])
        first = {run.path for run in (*runs, *(run.initial for run in runs)) if run}
        return sorted(self.plan.runs, key=lambda path: (path not in first, -self.urgency[path]))

    @cached_property
    def priority(self) -> dict[str, int]:
        """A number for every run, above 0 and the larger the earlier it is started."""
        return {path: place for place, path in enumerate(reversed(self.order), 1)}

    @cached_property
    def left_hours(self) -> dict[str, float]:
        """The hours that every run still needs: none where it ended."""
        left = {}
        for path, run in self.plan.runs.items():
            folder = self.plan.runs_folder / path
            ended = read_outcome(folder).metrics is not None
            done = 1.0 if ended else steps_saved(folder) / run.spec.recipe.steps
            left[path] = self.run_hours[path] * max(0.0, 1 - done)
        return left

    def makespan(self, devices: int, left: bool = False) -> float:
        """Return the hours until the last run ends, started in the workflow's order."""
        hours = self.left_hours if left else self.run_hours
        busy = [0.0] * devices
        ends: dict[str, float] = {}
        for path in self.order:
            first = self.plan.runs[path].initial
            start = max(heapq.heappop(busy), ends[first.path] if first else 0.0)
            ends[path] = start + hours[path]
            heapq.heappush(busy, ends[path])
        return max(busy)


def load_cost(plan: Plan) -> Cost:
    """Return the cost of a plan by its `hardware`: a calibration's name, or one of published rates.

    Without a name it is the latest calibration that knows every network, and the published A100
    where none does. Raises UserError for an unknown name, and for a precision without a rate.
    """
    name, found = plan.config.hardware, plan.calibration_folder.glob("*.json")
    specs = [run.spec for run in plan.runs.values() if run.seed == plan.seeds[0]]
    paths = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    stems = [path.stem for path in paths]
    if name in stems:
        return Cost(plan, load_calibration(paths[stems.index(name)]))
    for calibration in map(load_calibration, paths if name is None else []):
        if all(network_key(spec) in calibration.measured for spec in specs):
            return Cost(plan, calibration)
    published, name = load_published(plan.root), name or "a100"
    require("hardware", [name], [*stems, *published.hardware], "plan")
    valid = published.hardware[name].resnet50
    for precision in sorted({spec.recipe.precision for spec in specs} - valid.keys()):
        raise UserError(
            f"{plan.root / PUBLISHED}: there is no {precision} rate of {name}; valid are: "
            f"{', '.join(valid)}. Choose other hardware, or measure with plan --calibrate."
        )
    return Cost(plan, PublishedRates(published, name))


def _hours(spec: AnySpec, images_per_second: float) -> float:
    recipe = spec.recipe
    evaluated = recipe.evaluations * recipe.dataset.validation_images
    images = recipe.steps * recipe.batch_size + EVALUATION_SHARE * evaluated
    return images / images_per_second / 3600
