"""ResAttNet, BigEarthNet's WRN, MogaNet, CMT and Wave-ViT: exact counts, shapes, refusals."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attention_ablation.base.errors import UserError
from attention_ablation.detectors.record import check_fit
from attention_ablation.evidence.complexity import measure
from attention_ablation.gates.build import FileGate
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.parts import attend, start
from attention_ablation.networks.record import Backbone
from attention_ablation.networks.wavevit import haar, inverse_haar
from attention_ablation.study.metrics import CountSize
from tests.made_gates import trained

# On one thread: with small maps more only wait for each other.
pytestmark = pytest.mark.usefixtures("deterministic")

NONE = Attention()
ECA = Attention(gate="eca", options={"bias": True})
HOSTS = ("resattnet56", "wrn-bigearthnet", "moganet-t", "cmt-ti", "wave-vit-s")
GATED = HOSTS[:2]


@pytest.mark.parametrize(
    ("name", "attention", "classes", "image_size", "params", "gflops"),
    [
        # pytorchcv's resattnet56, with an adaptive last pool.
        ("resattnet56", NONE, 1000, 224, 31_810_728, "6.270837"),
        ("wrn-bigearthnet", ECA, 1000, 224, 1_211_878, "6.584730"),
        # The authors' have 12 bands: 9 * 9 * 16 weights more, each used 90 * 90 times.
        ("wrn-bigearthnet", ECA, 19, 90, 984_601 - 1296, "1.080096"),
        # The authors' code. Attention is counted as matrix products, the Haar transform, which is
        # additions, not at all.
        ("moganet-t", NONE, 1000, 224, 5_197_332, "1.083283"),
        ("cmt-ti", NONE, 1000, 160, 9_492_426, "0.638905"),
        ("wave-vit-s", NONE, 1000, 224, 22_241_176, "4.599318"),
    ],
)
def test_parameters_and_multiply_accumulates_are_exact(
    name: str, attention: Attention, classes: int, image_size: int, params: int, gflops: str
) -> None:
    size = CountSize(classes=classes, image_size=image_size)
    found = measure(Backbone(name=name), attention, size)
    assert (found.params, f"{found.gflops:.6f}") == (params, gflops)


def test_cmts_parameters_grow_with_the_image_by_its_tables_only() -> None:
    # Of a stage: heads * HW * HW / k^2, of maps of side / 4, 8, 16 and 32.
    def tables(side: int) -> int:
        sides = [side // s for s in (4, 8, 16, 32)]
        stages = zip((1, 2, 4, 8), sides, (8, 4, 2, 1), strict=True)
        return sum(heads * s**2 * (s // k) ** 2 for heads, s, k in stages)

    small, large = (
        measure(Backbone(name="cmt-ti"), NONE, CountSize(classes=1000, image_size=side)).params
        for side in (32, 160)
    )
    assert large - small == tables(160) - tables(32)


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize(("width", "image_size"), [(0.25, 64), (0.5, 32)])
def test_a_narrow_one_learns_from_small_images(name: str, width: float, image_size: int) -> None:
    model = build(Backbone(name=name, width=width), NONE, 10, image_size)
    initialise(model, 0)
    stages: dict[str, Any] = model.stages
    maps = []
    for stage in stages.values():
        stage.register_forward_hook(lambda *call: maps.append(call[2].shape))
    logits = model(torch.randn(4, 3, image_size, image_size))
    assert logits.shape == (4, 10)
    # Maps of falling size, the last one of the channels that the classifier, or a token, sees.
    assert len(maps) == len(stages)
    assert all(len(shape) == 4 and shape[2] == shape[3] for shape in maps)
    assert [shape[2] for shape in maps] == sorted((shape[2] for shape in maps), reverse=True)
    assert maps[-1][1] == model.get_submodule("fc").in_features
    loss = F.cross_entropy(logits, torch.arange(4))
    assert torch.isfinite(loss)
    loss.backward()
    grads = [p.grad for p in model.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("per_group", [True, False])
def test_convolutions_start_by_fan_out_and_linear_layers_small(per_group: bool) -> None:
    conv, linear = nn.Conv2d(64, 64, 5, groups=64), nn.Linear(100, 100)
    start(nn.Sequential(conv, linear), per_group=per_group)
    # 25 places of one output channel, or of all 64.
    expected = (2 / (25 if per_group else 25 * 64)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.1)
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not conv.bias.any()
    assert not linear.bias.any()


@pytest.mark.parametrize("name", GATED)
def test_gates_stand_on_residuals_before_the_addition(name: str) -> None:
    backbone = Backbone(name=name, width=0.25)
    model = build(backbone, Attention(gate="eca"), 10, 32)
    gates = [m for m in model.modules() if isinstance(m, FileGate)]
    assert [g.channels for g in gates] == list(backbone.network.gated_channels(0.25))
    assert len(gates) == {"resattnet56": 33, "wrn-bigearthnet": 3}[name]
    # A residual times 0 leaves the shortcut.
    unit = next(m for m in model.modules() if hasattr(m, "gate") and not isinstance(m, FileGate))
    unit.gate = nn.Threshold(torch.inf, 0)
    x = torch.randn(2, 4 if name == "wrn-bigearthnet" else 16, 8, 8)
    seen = x if name == "wrn-bigearthnet" else unit.before(x)
    torch.testing.assert_close(unit(x), unit.shortcut(seen))


@pytest.mark.parametrize("name", HOSTS[2:])
def test_a_network_with_attention_of_its_own_refuses_a_gate(name: str) -> None:
    with pytest.raises(ValueError, match=f"expected no attention in {name}, got 'eca'"):
        build(Backbone(name=name), ECA, 10)
    with pytest.raises(UserError, match=f"expected no attention in {name}, which has no gates"):
        check_fit(ECA, Backbone(name=name), "a row")


@pytest.mark.parametrize("name", HOSTS)
def test_a_width_that_leaves_no_channel_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"expected a width that leaves {name} a channel"):
        check_fit(NONE, Backbone(name=name, width=0.01), "a tier")


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        ("cmt-ti", 80, "cmt-ti: expected images whose side is a multiple of 32 px.*got 80 px"),
        ("wave-vit-s", 72, "wave-vit-s: expected images whose side is a multiple of 16 px.*got 72"),
        ("wave-vit-s", 16, "at least 32, as its wavelets need, got 16 px; choose another"),
    ],
)
def test_an_image_size_that_cannot_work_is_refused(
    name: str, image_size: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(Backbone(name=name, width=0.25), NONE, 10, image_size)


def test_cmt_takes_images_of_the_size_it_was_built_for_only() -> None:
    model = build(Backbone(name="cmt-ti", width=0.25), NONE, 10, 32)
    with pytest.raises(UserError, match=r"expected images of 32x32 px.*got 64x32; build it for"):
        model(torch.randn(2, 3, 64, 32))


def test_residual_attention_takes_images_whose_maps_do_not_halve() -> None:
    model = build(Backbone(name="resattnet56", width=0.25), NONE, 10).eval()
    assert model(torch.randn(1, 3, 90, 75)).shape == (1, 10)


def test_the_haar_transform_is_orthonormal_and_undone_by_its_inverse() -> None:
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    bands = haar(x)
    assert bands.shape == (2, 12, 4, 3)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    torch.testing.assert_close(inverse_haar(bands), x)
    # By the products of the one-dimensional filters, whose rows are the low and the high one.
    filters = torch.tensor([[1, 1], [1, -1]], dtype=x.dtype) / 2**0.5
    blocks = x.unfold(2, 2, 2).unfold(3, 2, 2)  # (N, C, H / 2, W / 2, 2, 2)
    expected = torch.einsum("nchwij,vi,uj->nuvchw", blocks, filters, filters)
    torch.testing.assert_close(bands, expected.flatten(1, 3))


def test_haars_bands_have_the_dtype_of_the_map() -> None:
    assert inverse_haar(haar(torch.ones(1, 2, 4, 4, dtype=torch.bfloat16))).dtype == torch.bfloat16


def test_attention_is_torchs() -> None:
    q, k, v = torch.randn(2, 6, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    bias = torch.randn(4, 6, 5)
    heads = (x.reshape(2, -1, 4, 2).transpose(1, 2) for x in (q, k, v))
    expected = F.scaled_dot_product_attention(*heads, attn_mask=bias)
    expected = expected.transpose(1, 2).reshape(2, 6, 8)
    torch.testing.assert_close(attend(q, k, v, 4, bias), expected)


def test_eca_has_a_bias_where_its_option_says_so() -> None:
    gate: Any = trained("eca", 16, bias=True)
    assert trained("eca", 16).conv.bias is None
    x = torch.randn(2, 16, 3, 3)
    with torch.no_grad():
        plain = F.conv1d(x.mean((2, 3))[:, None], gate.conv.weight, padding=1)[:, 0]
        weights = torch.sigmoid(plain + gate.conv.bias)
        torch.testing.assert_close(gate(x), x * weights[:, :, None, None])
