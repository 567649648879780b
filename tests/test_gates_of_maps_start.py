"""BA-Net, SDA-xNet, CAT, SCA-CNN and DA2-Net: options, what is refused, start, degenerate maps."""

from typing import Any

import pytest
import torch

from attention_ablation.evidence.complexity import measure
from attention_ablation.gates.build import build_gate
from attention_ablation.gates.cat import entropy, gaussian
from attention_ablation.gates.parts import weighted_sum
from attention_ablation.gates.record import Attention
from attention_ablation.gates.source import builtin_gates
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from tests.test_gates_of_maps import COUNTS, make, maps_for, randomised

OURS = list(COUNTS)


def test_each_file_says_where_its_gate_stands_and_what_it_is_of_its_papers() -> None:
    gates = {name: builtin_gates()[name] for name in OURS}
    assert {name: gate.place for name, gate in gates.items()} == {
        **dict.fromkeys(OURS, "block-end"),
        "ba": "inside-block",
        "sda": "over-stage",
    }
    labels = ["exact", "exact", "reading", "reading", "reconstruction"]
    assert [gate.label for gate in gates.values()] == labels
    assert all("arXiv:" in gate.paper for gate in gates.values())
    assert [name for name, gate in gates.items() if gate.has_start] == ["ba", "cat"]


def test_the_reduction_sets_the_hidden_units() -> None:
    assert make("ba", [16, 16, 64], reduction=8).expand.in_features == 8
    assert make("cat", 64, reduction=8).mlp[0].out_features == 8
    assert make("sca", 64, reduction=8).w.shape == (8,)
    floors = [make("sda", [c, c], reduction=16).squeeze[0].out_features for c in (64, 1024, 2048)]
    assert floors == [64, 64, 128]
    floors = [make("da2", c, reduction=16).squeeze[0].out_features for c in (64, 512, 1024)]
    assert floors == [32, 32, 64]
    # The floors are a quarter of that with a quarter of the reduction.
    assert make("sda", [16, 16], reduction=4).squeeze[0].out_features == 16
    assert make("da2", 16, reduction=4).squeeze[0].out_features == 8


def test_sca_with_the_hidden_units_of_its_paper() -> None:
    counted = measure(Backbone(name="resnet50"), Attention(gate="sca", options={"hidden": 512}))
    assert (counted.params, f"{counted.gflops:.2f}") == (33_130_808, "6.07")


@pytest.mark.parametrize("name", OURS)
def test_what_cannot_be_made_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match="a reduction of at most the 16 channels, got 32"):
        make(name, reduction=32)


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="expected at least one hidden unit, got 0"):
        make("sca", hidden=0)
    with pytest.raises(ValueError, match=r"expected blocks of equal channels, got \[16, 32\]"):
        make("sda", [16, 32])
    with pytest.raises(ValueError, match="expected 4 maps, one a weight, got 3"):
        make("sda").eval()(maps_for("sda")[:3])
    with pytest.raises(ValueError, match="'start' has no meaning"):
        Attention(gate="sca", start="identity")


@pytest.mark.parametrize("name", ["ba", "sda", "da2"])
def test_pooled_batch_norms_need_two_images_in_training_only(name: str) -> None:
    maps = maps_for(name)
    one = [x[:1] for x in maps] if isinstance(maps, list) else maps[:1]
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        make(name).train()(one)
    assert make(name).eval()(one).isfinite().all()


def test_a_sum_of_maps_is_in_their_dtype_and_layout() -> None:
    maps = [torch.full((2, 4, 3, 3), i + 1.0) for i in range(3)]
    maps = [x.bfloat16().to(memory_format=torch.channels_last) for x in maps]
    weights = torch.tensor([0.5, 0.25, 0.25])[None, :, None].expand(2, 3, 4)
    out = weighted_sum(maps, weights)
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert (out == 1.75).all()


# The start.


def test_cat_starts_as_half_of_its_map_exactly_and_as_the_identity_with_twice_the_gain() -> None:
    x = maps_for("cat")
    assert torch.equal(make("cat")(x), x / 2)
    gate = build_gate(Attention(gate="cat", start="identity", options={"reduction": 4}), 16)
    assert torch.equal(gate(x), x)


def test_ba_starts_near_half_of_its_map_and_near_it_with_twice_the_gain() -> None:
    maps = maps_for("ba")
    ratio = (make("ba")(maps) / maps[-1]).detach()
    assert ratio.mean() == pytest.approx(0.5, abs=0.05)
    assert (ratio - 0.5).abs().max() < 0.25
    assert torch.equal(make("ba", gain=2)(maps), 2 * make("ba")(maps))


def test_sca_starts_near_its_map_and_its_attentions_have_mean_one() -> None:
    x = maps_for("sca")
    assert (make("sca")(x) / x - 1).abs().max() < 0.15
    found = randomised(make("sca"))(torch.ones(2, 16, 5, 6))
    assert torch.allclose(found.mean((1, 2, 3)), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(("name", "branches"), [("sda", 4), ("da2", 3)])
def test_the_weights_of_depths_and_branches_start_near_equal(name: str, branches: int) -> None:
    gate, maps = make(name), maps_for(name)
    found = []
    gate.select.register_forward_hook(lambda _, __, scores: found.append(scores))
    gate(maps)
    weights = found[0].unflatten(1, (branches, 16)).softmax(1)
    assert (weights.mean((0, 2)) - 1 / branches).abs().max() < 0.1


def test_equal_scores_give_the_mean() -> None:
    sda, maps = make("sda"), maps_for("sda")
    torch.nn.init.zeros_(sda.select.weight)
    torch.nn.init.zeros_(sda.select.bias)
    assert torch.allclose(sda(maps), torch.stack(maps).mean(0), atol=1e-6)
    da2, x = make("da2").eval(), maps_for("da2")
    torch.nn.init.zeros_(da2.select.weight)
    branches = [x, *(branch(x) for branch in da2.branches)]
    assert torch.allclose(da2(x), torch.stack(branches).mean(0), atol=1e-6)


# Maps without differences.


def test_sca_leaves_a_map_of_one_place_to_its_channel_attention() -> None:
    gate, x = randomised(make("sca")), maps_for("sca", 1, 1)
    before = gate(x)
    torch.nn.init.normal_(gate.spatial[2].weight, std=9)
    assert torch.equal(gate(x), before)


@pytest.mark.parametrize("value", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
@pytest.mark.parametrize("half", [False, True])
def test_cat_is_finite_on_constant_maps(value: float, size: tuple[int, int], half: bool) -> None:
    gate = randomised(make("cat"))
    x = torch.full((2, 16, *size), value, dtype=torch.bfloat16 if half else torch.float32)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = gate(x)
    out.float().sum().backward()
    tensors = [out, x.grad, *(p.grad for p in gate.parameters())]
    assert all(tensor.isfinite().all() for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_entropy_is_least_of_a_spike_and_largest_of_a_flat_map(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 3, 12, dtype=dtype)
    x[0, 0, 5] = 1000  # its softmax underflows to 0 everywhere else
    x[0, 1, :6] = 100  # even over 6 of 12 places
    x.requires_grad_()
    found = entropy(x, 2)
    found.sum().backward()
    expected = torch.tensor([0, torch.log(torch.tensor(6.0)) / torch.log(torch.tensor(12.0)), 1])
    assert torch.allclose(found[0], expected, atol=1e-6)
    assert x.grad.isfinite().all()
    assert not entropy(torch.ones(2, 4, 9), 2).any()


def test_the_blur_keeps_a_flat_map_and_is_symmetric() -> None:
    kernel = gaussian()
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert torch.equal(kernel, kernel.T)
    assert torch.equal(kernel, kernel.flip(0))
    assert kernel[2, 2] / kernel[2, 1] == pytest.approx(2.71828**0.5, abs=1e-4)


def test_the_branches_of_da2_at_zero_have_the_gradient_of_the_map_alone() -> None:
    model: Any = build(Backbone(name="resnet18", width=0.25), Attention(gate="da2"), 10)
    initialise(model, 0, zero_init_residual=True)
    gate = model.layer1[0].gate.gate
    x, direction = torch.zeros(8, 16, 8, 8, requires_grad=True), torch.randn(8, 16, 8, 8)
    (gate(x) * direction).sum().backward()
    shares = gate.select(gate.squeeze(torch.zeros(8, 16))).unflatten(1, (3, 16)).softmax(1)
    # A norm of a map of zeros would make it 316 times as large.
    torch.testing.assert_close(x.grad, direction * shares[:, 0, :, None, None])
