"""Gates against closed forms and against sums written out pixel by pixel."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from attention_ablation.gates.build import build_gate
from attention_ablation.gates.cbam import ChannelAttention, SpatialAttention
from attention_ablation.gates.record import Attention
from attention_ablation.study.config import Study

CBAM = Attention(pooling="avg&max", descriptor="pool", reduction=4)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@given(
    n=st.integers(1, 3),
    channels=st.integers(4, 40),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pooling=st.sampled_from(["avg", "max", "avg&max", None]),
    descriptor=st.sampled_from(["pool", "conv1x1", None]),
    kernel=st.sampled_from([3, 7]),
    arrangement=st.sampled_from(["channel-first", "spatial-first", "parallel"]),
)
@settings(max_examples=60, deadline=None)
def test_gates_keep_the_shape_and_only_weaken(
    n: int, channels: int, height: int, width: int, **keys: str | int | None
) -> None:
    if not keys["descriptor"]:
        keys.pop("kernel")
    if not (keys["pooling"] and keys["descriptor"]):
        keys.pop("arrangement")
    reduction = 4 if keys["pooling"] else None
    gate = build_gate(Attention.model_validate(keys | {"reduction": reduction}), channels).eval()
    x = torch.randn(n, channels, height, width)
    y = gate(x)
    assert y.shape == x.shape
    assert (y.abs() <= x.abs()).all()  # a sigmoid is below 1
    assert (y * x >= 0).all()  # and above 0


def test_channel_attention_is_the_sum_of_both_passes_of_the_mlp() -> None:
    gate = ChannelAttention(8, reduction=4)
    x = torch.randn(2, 8, 3, 5)
    first, _, second = gate.mlp
    for image in range(2):
        raw = torch.zeros(8)
        for pooled in (
            torch.tensor([x[image, c].sum() / 15 for c in range(8)]),
            torch.tensor([max(x[image, c].flatten().tolist()) for c in range(8)]),
        ):
            hidden = (first.weight @ pooled + first.bias).clamp(min=0)
            raw += second.weight @ hidden + second.bias
        torch.testing.assert_close(gate(x)[image, :, 0, 0], raw)


def test_spatial_attention_is_a_padded_convolution_of_max_and_mean() -> None:
    gate = SpatialAttention(6, kernel=3, norm=False)
    x = torch.randn(1, 6, 4, 4)
    raw = gate(x)
    weight = gate.conv.weight.detach()[
        0
    ]  # (2, 3, 3): the maximum comes first, as in the authors' code
    for i in range(4):
        for j in range(4):
            total = 0.0
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if 0 <= i + di < 4 and 0 <= j + dj < 4:
                        pixel = x[0, :, i + di, j + dj]
                        total += float(pixel.max() * weight[0, di + 1, dj + 1])
                        total += float(pixel.mean() * weight[1, di + 1, dj + 1])
            assert raw[0, 0, i, j].item() == pytest.approx(total, abs=1e-5)


def test_the_authors_norm_makes_the_spatial_gate_start_as_one_half() -> None:
    gate = build_gate(Attention(descriptor="pool"), 8)
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(gate(x), x / 2)
    assert not torch.allclose(build_gate(Attention(descriptor="pool", norm=False), 8)(x), x / 2)


def constant_gate(arrangement: str, channel: float, spatial: float) -> Tensor:
    """The output for a map of ones, when the raw attentions are these constants."""
    attention = CBAM.model_copy(update={"arrangement": arrangement, "norm": False})
    gate = build_gate(attention, 4)
    for module in gate.modules():
        if isinstance(module, ChannelAttention):
            nn.init.zeros_(module.mlp[2].weight)
            nn.init.constant_(module.mlp[2].bias, channel / 2)  # one half from each pool
        if isinstance(module, SpatialAttention):
            module.descriptor = nn.Identity()
            module.conv = Constant(spatial)
    output: Tensor = gate(torch.ones(1, 4, 3, 3))
    return output


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, :1], self.value)


@pytest.mark.parametrize("arrangement", ["channel-first", "spatial-first"])
def test_sequential_gates_multiply_their_sigmoids(arrangement: str) -> None:
    output = constant_gate(arrangement, 0.3, -1.2)
    torch.testing.assert_close(output, torch.full_like(output, sigmoid(0.3) * sigmoid(-1.2)))


def test_parallel_gates_share_one_sigmoid_of_their_sum() -> None:
    output = constant_gate("parallel", 0.3, -1.2)
    torch.testing.assert_close(output, torch.full_like(output, sigmoid(0.3 - 1.2)))


@pytest.mark.parametrize("arrangement", ["channel-first", "spatial-first"])
def test_the_second_gate_sees_the_map_that_the_first_has_weighted(arrangement: str) -> None:
    gate = build_gate(CBAM.model_copy(update={"arrangement": arrangement}), 8).eval()
    assert isinstance(gate, nn.Sequential)
    kinds = [type(part.attention) for part in gate]
    expected = [ChannelAttention, SpatialAttention]
    assert kinds == (expected if arrangement == "channel-first" else expected[::-1])
    x = torch.randn(2, 8, 4, 4)
    first = x * gate[0].attention(x).sigmoid()
    torch.testing.assert_close(gate(x), first * gate[1].attention(first).sigmoid())


def test_every_gate_of_the_study_compiles_whole_and_runs_channels_last_and_in_bf16(
    study: Study,
) -> None:
    x = torch.randn(2, 16, 6, 6)
    for name, attention in study.attentions.items():
        gate = build_gate(attention, 16).eval()
        expected = gate(x)
        torch._dynamo.reset()
        compiled = torch.compile(gate, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected, msg=name)
        last = gate(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, expected)
        assert last.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            half = gate(x)
        torch.testing.assert_close(half.float(), expected, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("name", ["se", "cbam", "parallel", "channel+spatial-conv1x1-k7"])
def test_gradients_are_those_of_finite_differences(study: Study, name: str) -> None:
    attention = study.attentions[name].model_copy(update={"reduction": 2})
    gate = build_gate(attention, 4).double().eval()
    x = torch.randn(2, 4, 3, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(gate, x)


def test_parts_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="odd kernel"):
        Attention(descriptor="pool", kernel=4)
    with pytest.raises(ValueError, match="at most the 8 channels, got 16"):
        ChannelAttention(8, reduction=16)


def test_equal_gates_are_equal_records() -> None:
    assert Attention(pooling="avg") == Attention(pooling="avg", reduction=16)
    assert Attention(pooling="avg&max", descriptor="pool") == Attention(
        pooling="avg&max", descriptor="pool", kernel=7, norm=True, arrangement="channel-first"
    )
    with pytest.raises(ValidationError, match="no meaning without descriptor"):
        Attention(pooling="avg", kernel=7)


@pytest.mark.parametrize("arrangement", ["channel-first", "spatial-first", "parallel"])
def test_a_gate_that_has_learned_nothing_scales_by_its_start(arrangement: str) -> None:
    keys = {"pooling": "avg&max", "descriptor": "pool", "reduction": 4, "arrangement": arrangement}
    x = torch.randn(2, 8, 5, 6)
    gains = {"half": 0.5 if arrangement == "parallel" else 0.25, "identity": 1.0}
    for start, gain in gains.items():
        gate = build_gate(Attention.model_validate(keys | {"start": start}), 8).eval()
        channel = next(m for m in gate.modules() if isinstance(m, ChannelAttention))
        nn.init.zeros_(channel.mlp[2].weight)
        nn.init.zeros_(channel.mlp[2].bias)
        torch.testing.assert_close(gate(x), gain * x, rtol=0, atol=0)
        control = build_gate(Attention(gate="scale", options={"factor": gain}), 8)
        assert not list(control.parameters())
        torch.testing.assert_close(control(x), gate(x), rtol=0, atol=0)


@pytest.mark.parametrize("keys", [{"pooling": "avg&max"}, {"descriptor": "pool"}])
def test_from_the_identity_the_same_weights_attend_twice_as_much(keys: dict[str, str]) -> None:
    x = torch.randn(2, 16, 5, 6)
    half = build_gate(Attention.model_validate(keys), 16).eval()
    identity = build_gate(Attention.model_validate(keys | {"start": "identity"}), 16).eval()
    identity.load_state_dict(half.state_dict())
    torch.testing.assert_close(identity(x), 2 * half(x))


def test_the_tier_starts_the_gates_of_which_the_study_says_nothing() -> None:
    se, none = Attention(pooling="avg"), Attention()
    assert se.sized(None, "identity").start == "identity"
    for start in ("half", None):  # the authors' gate is one record, and so one run
        assert (
            se.sized(None, start) == se == Attention(pooling="avg", start="half").sized(None, start)
        )
    assert Attention(pooling="avg", start="half").sized(None, "identity") == se
    assert Attention(pooling="avg", start="identity").sized(None, "half").start == "identity"
    assert none.sized(4, "identity") == none
    with pytest.raises(ValidationError, match="'start' has no meaning without pooling, desc"):
        Attention(gate="scale", start="identity")
