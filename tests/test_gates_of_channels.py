"""BAM, ECA, GC, CRA, FcaNet and WaveNet-C: exact counts, how they start, what is refused."""

from typing import Any

import pytest
import torch

from attention_ablation.base.errors import UserError
from attention_ablation.evidence.complexity import measure
from attention_ablation.gates.eca import adaptive_kernel
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from tests.made_gates import fresh

# Exact parameters, and multiply-accumulates in 1e9 to six decimals, of the networks below.
COUNTED = (("resnet50", "v1"), ("resnet50", "v1.5"), ("resnet34", "v1"), ("resnet18", "v1"))
BIASLESS_SE = "28,071,976 28,071,976 21,954,856 11,776,552", "3.860488 4.091699 3.663919 1.814160"
EXACT = {
    "bam": ("25,915,099 25,915,099 21,820,663 11,712,503", "3.940120 4.171331 3.668912 1.819224"),
    "eca": ("25,557,118 25,557,118 21,797,746 11,689,548", "3.858061 4.089272 3.663780 1.814083"),
    "gc": ("28,105,032 28,105,032 21,963,132 11,780,760", "3.871527 4.102738 3.666678 1.815666"),
    "cra": ("26,312,232 26,312,232 21,986,472 11,785,512", "3.858713 4.089924 3.663946 1.814167"),
    "fca": BIASLESS_SE,
    "wavenet": BIASLESS_SE,
}


@pytest.mark.parametrize("gate", EXACT)
def test_networks_with_it_are_exact(gate: str) -> None:
    params, gmacs = (text.split() for text in EXACT[gate])
    for (name, stride), n, g in zip(COUNTED, params, gmacs, strict=True):
        backbone = Backbone.model_validate({"name": name, "stride": stride})
        found = measure(backbone, Attention(gate=gate))
        assert (f"{found.params:,}", f"{found.gflops:.6f}") == (n, g)


def test_an_eca_of_kernel_3_everywhere_has_48_parameters_in_resnet50() -> None:
    fixed = Attention.model_validate({"gate": "eca", "options": {"kernel": 3}})
    assert measure(Backbone(name="resnet50"), fixed).params == 25_557_032 + 16 * 3


def test_ecas_kernel_grows_with_the_channels() -> None:
    found = [adaptive_kernel(c) for c in (1, 16, 64, 128, 256, 512, 1024, 2048)]
    assert found == [3, 3, 3, 5, 5, 5, 5, 7]


@pytest.mark.parametrize("gate", ["eca", "fca", "wavenet"])
def test_it_starts_near_one_half_and_with_the_identity_near_one(gate: str) -> None:
    x = torch.randn(8, 64, 14, 14)
    half, one = fresh(gate)(x) / x, fresh(gate, start="identity")(x) / x
    assert half.mean().item() == pytest.approx(0.5, abs=0.02)
    assert half.std() < 0.1
    torch.testing.assert_close(one, 2 * half)


def test_cra_starts_at_one_half_on_average_and_anywhere_by_channel() -> None:
    gate: Any = fresh("cra", 512)
    assert gate.conv.weight.std().item() == pytest.approx((2 / 49) ** 0.5, rel=0.02)
    assert not gate.conv.bias.any()
    x = torch.randn(4, 512, 28, 28)
    factors = gate(x) / x
    assert factors.mean().item() == pytest.approx(0.5, abs=0.05)
    assert factors.std() > 0.3
    torch.testing.assert_close(fresh("cra", 512, start="identity")(x), 2 * gate(x))


def test_gc_starts_as_the_identity_and_bam_between_1_and_2() -> None:
    x = torch.randn(8, 64, 14, 14)
    torch.testing.assert_close(fresh("gc")(x), x)
    gate: Any = fresh("bam")
    factors = gate(x) / x
    assert 1 <= factors.min() < factors.max() <= 2
    assert not any(p.any() for name, p in gate.named_parameters() if name.endswith("bias"))
    # Fan-out of a dilated 3x3 convolution to 4 channels: 4 * 9.
    wide = [gate.spatial[i].weight for i in (3, 6)]
    assert torch.cat(wide).std().item() == pytest.approx((2 / 36) ** 0.5, rel=0.15)
    for gate_without_gain in ("gc", "bam"):
        with pytest.raises(ValueError, match="'start' has no meaning"):
            Attention.model_validate({"gate": gate_without_gain, "start": "identity"})


@pytest.mark.parametrize(
    ("gate", "channels", "options", "message"),
    [
        ("bam", 64, {"combine": "products"}, "expected combine sum or product, got 'products'"),
        ("bam", 8, {}, "expected a reduction of at most the 8 channels, got 16"),
        ("eca", 64, {"kernel": 4}, "expected 'adaptive' or an odd kernel of at least 1, got 4"),
        ("eca", 64, {"kernel": "wide"}, "expected 'adaptive' or an odd kernel.*got 'wide'"),
        ("gc", 8, {}, "expected a reduction of at most the 8 channels, got 16"),
        ("cra", 64, {"pool": "mean"}, "expected pool max or avg, got 'mean'"),
        ("fca", 24, {}, "expected channels in 16 equal groups, one a frequency, got 24; choose"),
        ("fca", 16, {"reduction": 32}, "expected a reduction of at most the 16 channels, got 32"),
        ("wavenet", 22, {}, "expected channels in 4 equal groups, one a filter, got 22; choose"),
        ("wavenet", 516, {}, "expected channels in 8 equal groups, one a filter, got 516"),
        ("wavenet", 64, {"filters": "harr"}, "expected filters gram-schmidt or haar, got 'harr'"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(
    gate: str, channels: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fresh(gate, channels, **options)


def test_bam_needs_two_images_in_training_and_one_in_evaluation() -> None:
    gate, x = fresh("bam"), torch.randn(1, 64, 7, 7)
    assert gate(x).shape == x.shape
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        gate.train()(x)
