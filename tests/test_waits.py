"""A detector's training step gives the GPU its work without waiting for what it finds."""

from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from attention_ablation.detectors.trunk import Transform
from attention_ablation.study.expand import Plan
from tests.pretended_gpu import GPU, OnGPU, PretendedGPU
from tests.small_detection import alone, detection_plan, task

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture
def plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(project)
    return detection_plan(project)


def step(plan: Plan, table: str, key: str) -> dict[str, int]:
    """Return where a training's second step waits, whose numbers are those on a CPU."""
    run = alone(plan, table, key)
    expected = task(plan, run)
    sums = [expected.loss(batch)[1] for batch in expected.batches(1)][1]
    detection = task(plan, run)
    detection.source._device = GPU
    model = detection.model
    with PretendedGPU() as gpu:
        tensors = [*model.named_parameters(), *model.named_buffers()]
        state = {name: OnGPU(value) for name, value in tensors}
        detection._trained = lambda *batch: functional_call(model, state, batch)
        batches = detection.batches(1)
        detection.loss(next(batches))
        gpu.waits.clear()
        loss, found = detection.loss(next(batches))
        loss.backward()
        waits = dict(gpu.waits)
    assert isinstance(found, OnGPU)
    assert torch.equal(found.held, sums)
    return waits


@pytest.mark.parametrize("key", ["mobilenet+ssd", "mobilenet+stairnet+se"])
def test_ssd_and_stairnet_never_wait(plan: Plan, key: str) -> None:
    assert step(plan, "table7", key) == {}


def test_faster_rcnn_waits_within_torchvision_and_where_its_own_losses_do(plan: Plan) -> None:
    waits = step(plan, "table6", "resnet18+faster-rcnn+cbam")
    ours = {place: times for place, times in waits.items() if "torchvision" not in place}
    # As often as torchvision's RegionProposalNetwork.compute_loss and fastrcnn_loss.
    assert ours == {
        "attention_ablation: Proposals.compute_loss": 2,
        "attention_ablation: RegionHeads.forward": 1,
    }
    assert waits["torchvision: nms"] == 4  # images


@pytest.mark.parametrize("fixed_size", [None, (50, 50)])
def test_an_image_is_resized_in_one_operation(fixed_size: tuple[int, int] | None) -> None:
    transform = Transform(50, 80, (0.5,) * 3, (0.25,) * 3, fixed_size=fixed_size)
    image = torch.rand(3, 30, 41)
    target = {"boxes": torch.tensor([[3.0, 4, 20, 30]])}
    expected = transform([image], [target])
    with PretendedGPU() as gpu:
        for name, values in transform.named_buffers():
            transform._buffers[name] = OnGPU(values)
        batch, (resized,) = transform([OnGPU(image)], [target])
    assert not gpu.waits
    assert gpu.operations["upsample_bilinear2d"] == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.equal(batch.tensors.held, expected[0].tensors)
    assert torch.equal(resized["boxes"], expected[1][0]["boxes"])
