"""Learning rates against torch's own schedulers, step by step."""

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from attention_ablation.spec.schedules import (
    CosineSchedule,
    MilestoneSchedule,
    OneCycleSchedule,
    Schedule,
    StepSchedule,
)
from attention_ablation.training.schedule import learning_rate

HIGHEST, STEPS, EPOCHS = 0.1, 7, 12


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=HIGHEST)


def theirs(name: str) -> list[float]:
    sgd = optimizer()
    schedule: Any
    if name == "step":
        schedule = lr_scheduler.StepLR(sgd, step_size=4 * STEPS, gamma=0.1)
    elif name == "one-cycle":
        schedule = lr_scheduler.OneCycleLR(
            sgd, HIGHEST, total_steps=STEPS * EPOCHS, pct_start=0.3, cycle_momentum=False
        )
    elif name == "milestones":
        warmup = lr_scheduler.LambdaLR(sgd, lambda step: (step + 1) / STEPS)
        steps = lr_scheduler.MultiStepLR(sgd, [4 * STEPS, 8 * STEPS], gamma=0.1)
        schedule = lr_scheduler.SequentialLR(sgd, [warmup, steps], [STEPS])
    else:
        warmup = lr_scheduler.LambdaLR(sgd, lambda step: (step + 1) / (2 * STEPS))
        cosine = lr_scheduler.CosineAnnealingLR(sgd, STEPS * (EPOCHS - 2))
        schedule = lr_scheduler.SequentialLR(sgd, [warmup, cosine], [2 * STEPS])
    rates = []
    for _ in range(STEPS * EPOCHS):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    return rates


@pytest.mark.filterwarnings("ignore:The epoch parameter in")
@pytest.mark.parametrize(
    "schedule",
    [
        StepSchedule(name="step", every=4),
        MilestoneSchedule(name="milestones", at=[5, 9], warmup_epochs=1),
        OneCycleSchedule(name="one-cycle"),
        CosineSchedule(name="cosine", warmup_epochs=2),
    ],
    ids=lambda schedule: schedule.name,
)
def test_every_step_is_torchs(schedule: Schedule) -> None:
    ours = [learning_rate(schedule, HIGHEST, step, STEPS, EPOCHS) for step in range(STEPS * EPOCHS)]
    assert ours == pytest.approx(theirs(schedule.name), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(
    "schedule",
    [
        MilestoneSchedule(name="milestones", at=[5], warmup_epochs=2),
        CosineSchedule(name="cosine", warmup_epochs=2),
    ],
    ids=lambda schedule: schedule.name,
)
def test_every_step_of_a_warm_up_learns_and_the_last_one_at_the_full_rate(
    schedule: Schedule, steps: int
) -> None:
    rates = [learning_rate(schedule, HIGHEST, step, steps, EPOCHS) for step in range(2 * steps + 1)]
    shares = [(step + 1) / (2 * steps) for step in range(2 * steps)]
    assert rates == pytest.approx([HIGHEST * share for share in [*shares, 1.0]])


def test_the_papers_protocol_divides_by_ten_at_epochs_31_and_61() -> None:
    schedule = StepSchedule(name="step", every=30, gamma=0.1)
    per_epoch = 5004  # 1,281,167 images in batches of 256
    rates = [learning_rate(schedule, 0.1, epoch * per_epoch, per_epoch, 90) for epoch in range(90)]
    assert rates == pytest.approx([0.1] * 30 + [0.01] * 30 + [0.001] * 30)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_one_cycle_without_a_way_up_or_down(warmup: float) -> None:
    schedule = OneCycleSchedule(name="one-cycle", warmup=warmup)
    rates = [learning_rate(schedule, HIGHEST, step, 10, 1) for step in range(10)]
    assert max(rates) == pytest.approx(HIGHEST)
    assert rates == sorted(rates, reverse=warmup == 0)
