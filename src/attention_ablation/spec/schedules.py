"""Schedules of the learning rate, as a recipe names them; training/schedule.py computes them."""

from typing import Annotated, Literal

from pydantic import Field

from attention_ablation.base.model import Fraction, Model


class StepSchedule(Model):
    """The learning rate is multiplied by `gamma` after every `every` epochs (the paper's)."""

    name: Literal["step"]
    every: int = Field(30, ge=1)
    gamma: Fraction = 0.1


class MilestoneSchedule(Model):
    """The learning rate is multiplied by `gamma` at the start of each of the epochs in `at`."""

    name: Literal["milestones"]
    at: list[int] = Field(
        min_length=1, description="Epochs that are done by then, e.g. [150, 200]."
    )
    gamma: Fraction = 0.1
    warmup_epochs: int = Field(
        0, ge=0, description="A linear warm-up over these first: step i of w has i/w of the rate."
    )


class OneCycleSchedule(Model):
    """Up from lr/25 and down to lr/250,000, both as cosines, step by step (Smith 2018)."""

    name: Literal["one-cycle"]
    warmup: Fraction = Field(0.3, description="Share of all steps on the way up.")


class CosineSchedule(Model):
    """A linear warm-up (step i of w has i/w of the rate), then half a cosine down to 0."""

    name: Literal["cosine"]
    warmup_epochs: int = Field(0, ge=0)


Schedule = Annotated[
    StepSchedule | MilestoneSchedule | OneCycleSchedule | CosineSchedule,
    Field(discriminator="name"),
]
