"""Networks against torchvision's own and against hand counts."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50, resnext50_32x4d, vgg16
from torchvision.ops import Conv2dNormActivation

from attention_ablation.gates.cbam import ChannelAttention
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise, stream
from attention_ablation.networks.network import convolution
from attention_ablation.networks.record import BACKBONES, Backbone

NONE = Attention()
CBAM = Attention(pooling="avg&max", descriptor="pool", reduction=4)


@pytest.mark.parametrize(
    ("name", "reference"),
    [("resnet18", resnet18), ("resnet50", resnet50), ("resnext50", resnext50_32x4d)],
)
def test_without_a_gate_it_is_torchvisions_network(name: str, reference: type[nn.Module]) -> None:
    theirs = reference().eval()
    ours = build(Backbone(name=name, stride="v1.5"), NONE, 1000).eval()
    # In this order modules stand in a weights file.
    names = [name for name, _ in ours.named_modules() if not name.endswith(".gate")]
    assert names == [name for name, _ in theirs.named_modules()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_v1_strides_in_the_first_convolution_of_a_bottleneck() -> None:
    for stride, first, second in (("v1", (2, 2), (1, 1)), ("v1.5", (1, 1), (2, 2))):
        backbone = Backbone.model_validate({"name": "resnet50", "stride": stride})
        block = build(backbone, NONE, 10).get_submodule("layer2.0")
        assert block.get_submodule("conv1").stride == first
        assert block.get_submodule("conv2").stride == second


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [("resnet18", 10, 11_173_962), ("resnet18", 100, 11_220_132), ("resnet50", 10, 23_520_842)],
)
def test_the_stem_for_small_images_keeps_their_size(
    name: str, classes: int, parameters: int
) -> None:
    # As often counted of the networks that are used on CIFAR.
    model = build(Backbone(name=name, stem="cifar"), NONE, classes)
    assert sum(p.numel() for p in model.parameters()) == parameters
    sizes = []
    for stage in model.stages.values():
        stage.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[2:])))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, classes)
    assert sizes == [(32, 32), (16, 16), (8, 8), (4, 4)]


@pytest.mark.parametrize(
    ("norm", "options"), [(True, {"stride": 2, "groups": 4}), (False, {"dilation": 6})]
)
def test_a_convolution_with_norm_and_relu_is_torchvisions(
    norm: bool, options: dict[str, int]
) -> None:
    theirs = Conv2dNormActivation(8, 12, 3, norm_layer=nn.BatchNorm2d if norm else None, **options)
    ours = convolution(8, 12, norm=norm, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 16, 16)
    assert torch.equal(ours(x), theirs(x))


def test_mobilenets_stem_for_small_images_does_not_stride() -> None:
    for stem, side in (("cifar", 2), (None, 1)):
        model = build(Backbone.model_validate({"name": "mobilenet", "stem": stem}), NONE, 10)
        assert model.features(torch.randn(2, 3, 32, 32)).shape[2:] == (side, side)


GATED = [name for name, shape in BACKBONES.items() if shape.gated_channels(1)]


@pytest.mark.parametrize("name", GATED)
def test_gates_stand_where_the_plain_data_say(name: str) -> None:
    # Width 0.25 leaves 5 channels in the narrowest MobileNet.
    model = build(Backbone(name=name, width=0.25), CBAM, 10, image_size=32)
    gates = [m.mlp[0].in_features for m in model.modules() if isinstance(m, ChannelAttention)]
    assert gates == BACKBONES[name].gated_channels(0.25)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_mobilenet_has_27_gates_and_hidden_units_are_rounded() -> None:
    model = build(Backbone(name="mobilenet-0.7"), Attention(pooling="avg"), 10)
    gates = [m for m in model.modules() if isinstance(m, ChannelAttention)]
    assert len(gates) == 27
    # 44 channels over 16 are 2.75 hidden units.
    assert (gates[2].mlp[0].in_features, gates[2].mlp[0].out_features) == (44, 3)


def test_two_networks_of_one_seed_start_equal_where_their_shapes_agree() -> None:
    plain, gated = (build(Backbone(name="resnet18", width=0.25), a, 10) for a in (NONE, CBAM))
    initialise(plain, 3)
    initialise(gated, 3)
    theirs = gated.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in plain.state_dict().items())
    other = build(Backbone(name="resnet18", width=0.25), NONE, 10)
    initialise(other, 4)
    assert not torch.equal(other.get_parameter("conv1.weight"), plain.get_parameter("conv1.weight"))


def test_weights_start_as_in_the_authors_code() -> None:
    model = build(Backbone(name="resnet50"), Attention(pooling="avg&max", descriptor="pool"), 1000)
    initialise(model, 0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or ".1.attention.norm" in name:
            assert not parameter.any(), name
        elif "bn" in name or "downsample.1" in name:
            assert (parameter == 1).all(), name
    conv = model.get_parameter("layer4.2.conv3.weight")  # fan-out: 2048 channels of 1x1
    assert conv.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.01)
    fc = model.get_parameter("fc.weight")  # fan-in: 2048
    assert fc.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50"])
def test_shortcuts_start_as_torchs_layers_do_and_other_convolutions_by_fan_out(name: str) -> None:
    # The authors' rule is for names with 'conv', which a shortcut's 'downsample.0' is not.
    model = build(Backbone(name=name), NONE, 10)
    initialise(model, 0)
    convs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    shortcuts = {n: m for n, m in convs.items() if n.endswith("downsample.0")}
    assert len(shortcuts) == (3 if name == "resnet18" else 4)
    for n, conv in convs.items():
        outputs, inputs, height, width = conv.weight.shape
        assert n not in shortcuts or (height, width) == (1, 1)
        shortcut = (3 * inputs) ** -0.5
        other = (2 / (outputs * height * width)) ** 0.5
        expected = shortcut if n in shortcuts else other
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.03), n
        if n in shortcuts:  # uniform within 1 / sqrt(inputs)
            assert conv.weight.abs().max().item() == pytest.approx(inputs**-0.5, rel=0.01)
    # A stream for each, of the seed.
    first = model.get_parameter("layer2.0.downsample.0.weight")
    again, other_seed = (build(Backbone(name=name), NONE, 10) for _ in range(2))
    initialise(again, 0)
    initialise(other_seed, 1)
    assert torch.equal(again.get_parameter("layer2.0.downsample.0.weight"), first)
    assert not torch.equal(other_seed.get_parameter("layer2.0.downsample.0.weight"), first)


@pytest.mark.parametrize(
    ("name", "attention"), [("resnet50", CBAM), ("mobilenet", CBAM), ("vgg16", NONE)]
)
def test_every_other_convolution_draws_the_same_weights_as_ever(
    name: str, attention: Attention
) -> None:
    assert stream(3, "conv1").initial_seed() == 7802602856108710564
    model = build(Backbone(name=name, width=0.25), attention, 10)
    initialise(model, 3)
    for n, conv in model.named_modules():
        if isinstance(conv, nn.Conv2d) and "downsample" not in n:
            outputs, _, height, width = conv.weight.shape
            deviation = math.sqrt(2) / math.sqrt(outputs * height * width)
            drawn = torch.empty_like(conv.weight).normal_(0, deviation, generator=stream(3, n))
            assert torch.equal(conv.weight, drawn), n


def test_zero_init_residual_starts_every_block_as_its_shortcut() -> None:
    model = build(Backbone(name="resnet50", width=0.25), NONE, 10)
    initialise(model, 0, zero_init_residual=True)
    block = model.get_submodule("layer1.1")
    x = torch.rand(2, 64, 4, 4)
    torch.testing.assert_close(block(x), x)


def test_vgg_is_torchvisions_up_to_its_connected_layers_and_takes_no_gate() -> None:
    theirs = vgg16(init_weights=False).eval()
    ours: Any = build(Backbone(name="vgg16"), NONE, 10).eval()
    names = [name for name in ours.state_dict() if name.startswith("features.conv")]
    state = ours.state_dict()
    for name, value in zip(names, theirs.features.state_dict().values(), strict=False):
        state[name] = value
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    # Up to the last pooling, which the reduced network has with stride 1.
    until = list(dict(ours.features.named_children())).index("pool5")
    with torch.no_grad():
        torch.testing.assert_close(ours.features[:until](x), theirs.features[:30](x))
        assert ours(x).shape == (1, 10)
    # 14,714,688 in 13 convolutions, conv6, conv7, the classifier.
    trunk = 14_714_688 + (512 * 9 * 1024 + 1024) + (1024 * 1024 + 1024)
    assert sum(p.numel() for p in ours.parameters()) == trunk + 1024 * 10 + 10
    with pytest.raises(ValueError, match="expected no attention in vgg16, got 'channel"):
        build(Backbone(name="vgg16"), CBAM, 10)


def test_vgg_with_batchnorm_at_another_width() -> None:
    model = build(Backbone(name="vgg16", width=0.25, norm=True), NONE, 10)
    initialise(model, 0)
    norms = [m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == [16] * 2 + [32] * 2 + [64] * 3 + [128] * 6 + [256] * 2
    assert model(torch.randn(2, 3, 33, 47)).shape == (2, 10)
