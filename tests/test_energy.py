"""Joules of a GPU by its counter, here a pretended one: sums over attempts, or none."""

import math
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from attention_ablation.training.energy import Energy, counter
from attention_ablation.training.machine import Machine


class NVMLError(Exception):
    pass


@dataclass
class Counter:
    """NVML, as far as it is asked here: one GPU, which has used so many millijoules."""

    used: int = 7_000_000
    uuid: str = "0ab1"
    NVMLError = NVMLError

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != f"GPU-{self.uuid}":
            raise NVMLError
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: str) -> int:  # noqa: N802
        assert gpu == f"GPU-{self.uuid}"
        return self.used


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Counter:
    found = Counter()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    properties = SimpleNamespace(uuid="0ab1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(Machine, "device", torch.device("cuda", 0))
    return found


def test_joules_are_counted_from_the_start_on_and_over_attempts(nvml: Counter) -> None:
    first = Energy(Machine())
    assert first.joules() == 0
    nvml.used += 1_500
    assert first.joules() == pytest.approx(1.5)
    nvml.used += 900_000  # somebody else's, in between
    second = Energy(Machine())
    second.earlier = first.earlier + 1.5
    nvml.used += 2_000
    assert second.joules() == pytest.approx(3.5)


def test_a_shared_gpu_a_part_of_one_and_a_cpu_have_none(
    nvml: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert math.isnan(Energy(Machine(runs_per_gpu=2)).joules())
    assert counter(Machine()) == 7000
    nvml.uuid = "of a part"
    assert math.isnan(Energy(Machine()).joules())
    monkeypatch.setattr(Machine, "device", torch.device("cpu"))
    assert math.isnan(Energy(Machine()).joules())
