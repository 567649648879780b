"""Half precision on a GPU, without one: every map keeps the dtype that a bare network gives it."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_ablation.check.without_gpu import output_under_autocast
from attention_ablation.detectors.record import Detector
from attention_ablation.detectors.ssd import GatedSources
from attention_ablation.detectors.stairnet import StairFeatures
from attention_ablation.gates.build import build_gate
from attention_ablation.gates.cbam import Gate, ParallelGate
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build
from attention_ablation.networks.record import Backbone
from attention_ablation.networks.resnet import BasicBlock, Bottleneck
from attention_ablation.study.config import Study

CBAM = Attention(pooling="avg&max", descriptor="pool")
PARALLEL = Attention(pooling="avg&max", descriptor="pool", arrangement="parallel")
HALVES = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])


@HALVES
def test_autocast_is_a_gpus(half: torch.dtype) -> None:
    class Both(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x.sum(0)

    # By torch's list, linear layers run in half and sums in single precision.
    linear, total = output_under_autocast(Both(3, 4), (2, 3), half, half)
    assert (linear.dtype, total.dtype) == (half, torch.float32)
    assert linear.device.type == "cuda"
    assert not torch.is_autocast_enabled("cuda")


@HALVES
def test_every_gate_of_the_study_returns_the_dtype_that_comes_in(
    study: Study, half: torch.dtype
) -> None:
    for name, attention in study.attentions.items():
        gate = build_gate(attention, 16)
        for dtype in (half, torch.float32):
            out = output_under_autocast(gate, (2, 16, 7, 7), dtype, half)
            assert (name, out.dtype) == (name, dtype)


def blocks_dtypes(model: nn.Module, blocks: tuple[type[nn.Module], ...]) -> list[torch.dtype]:
    """The dtypes of the blocks' outputs under bfloat16 autocast on a GPU, in order."""
    seen: list[torch.dtype] = []
    for block in model.modules():
        if isinstance(block, blocks):
            block.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    output_under_autocast(model, (2, 3, 64, 64), torch.float32, torch.bfloat16)
    return seen


def test_the_residual_stream_of_every_row_stays_in_half_precision(study: Study) -> None:
    for attention in study.attentions.values():
        model = build(Backbone(name="resnet18", width=0.25), attention, 10)
        assert blocks_dtypes(model, (BasicBlock,)) == [torch.bfloat16] * 8
    for attention in (Attention(pooling="avg"), CBAM, PARALLEL):
        model = build(Backbone(name="resnet50", width=0.25), attention, 10)
        assert blocks_dtypes(model, (Bottleneck,)) == [torch.bfloat16] * 16
    model = build(Backbone(name="mobilenet"), CBAM, 10)
    assert blocks_dtypes(model, (Gate,)) == [torch.bfloat16] * 2 * 27


@pytest.mark.parametrize(("name", "features"), [("ssd", GatedSources), ("stairnet", StairFeatures)])
def test_a_detectors_gates_keep_the_dtype_of_its_maps(name: Any, features: Any) -> None:
    found = []
    for attention in (Attention(), CBAM):
        model = features(Detector(name=name), Backbone(name="mobilenet"), attention)
        maps = output_under_autocast(model, (2, 3, 300, 300), torch.float32, torch.bfloat16)
        assert isinstance(maps, OrderedDict)
        found.append([x.dtype for x in maps.values()])
    assert found[0] == found[1]


@pytest.mark.parametrize("attention", [Attention(pooling="avg"), CBAM, PARALLEL])
def test_no_map_is_kept_in_single_precision_for_the_backward_pass(attention: Attention) -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = build_gate(attention, 16)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autograd.graph.saved_tensors_hooks(keep, keep):
                out: Tensor = self.gate(x.requires_grad_())
            return out

    output_under_autocast(Keeping(), (2, 16, 7, 7), torch.bfloat16, torch.bfloat16)
    maps = [t for t in kept if t.shape == (2, 16, 7, 7)]
    assert maps
    assert {t.dtype for t in maps} == {torch.bfloat16}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("arrangement", ["channel-first", "spatial-first", "parallel"])
def test_in_single_precision_a_gate_is_its_formula_bit_for_bit(
    arrangement: str, layout: torch.memory_format
) -> None:
    attention = CBAM.model_copy(update={"arrangement": arrangement})
    gate: Any = build_gate(attention, 32)
    for parameter in gate.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, 32, 9, 14).contiguous(memory_format=layout)
    weight = torch.randn_like(x)

    def written_out(x: Tensor) -> Tensor:
        if isinstance(gate, ParallelGate):
            raw: Tensor = gate.channel(x) + gate.spatial(x)
            return x * raw.sigmoid()
        for part in gate:
            x = x * part.attention(x).sigmoid()
        return x

    results = []
    for forward in (gate, written_out):
        given = x.clone(memory_format=layout).requires_grad_()
        out = forward(given)
        (out * weight).sum().backward()
        gradients = [p.grad for p in gate.parameters()]
        gate.zero_grad()
        results.append([out, given.grad, *gradients])
    for ours, formula in zip(*results, strict=True):
        assert torch.equal(ours, formula)
