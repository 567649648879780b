"""The learning rate as a function of the step, so that nothing has to be stored to resume."""

import math

from attention_ablation.spec.schedules import (
    MilestoneSchedule,
    OneCycleSchedule,
    Schedule,
    StepSchedule,
)

# One-cycle's first and last learning rate, as shares of the highest (torch's defaults).
INITIAL_SHARE, FINAL_SHARE = 1 / 25, 1 / 25 / 10_000


def learning_rate(
    schedule: Schedule, highest: float, step: int, steps_per_epoch: int, epochs: int
) -> float:
    """Return the learning rate of a step, from 0; `highest` is the recipe's."""
    if isinstance(schedule, StepSchedule):
        return highest * schedule.gamma ** (step // steps_per_epoch // schedule.every)
    total = steps_per_epoch * epochs
    if not isinstance(schedule, OneCycleSchedule):
        warmup = steps_per_epoch * schedule.warmup_epochs
        if step < warmup:
            return highest * (step + 1) / warmup  # the first step learns, too
        if isinstance(schedule, MilestoneSchedule):
            passed = sum(step // steps_per_epoch >= epoch for epoch in schedule.at)
            return highest * schedule.gamma**passed
        return _cosine(highest, 0.0, (step - warmup) / max(1, total - warmup))
    peak = max(0.0, schedule.warmup * total - 1)
    if step < peak:
        return _cosine(highest * INITIAL_SHARE, highest, step / peak)
    return _cosine(highest, highest * FINAL_SHARE, (step - peak) / max(1.0, total - 1 - peak))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
