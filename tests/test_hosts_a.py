"""GhostNet, Ghost-ResNet50, G-Ghost, Res2Net, HaloNet, DenseNet and WideResNet50-2 as hosts."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from attention_ablation.base.errors import UserError
from attention_ablation.evidence.complexity import Complexity, measure
from attention_ablation.gates.build import gates_of
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import CLASSIFIERS, build, initialise
from attention_ablation.networks.families.ghostnet import GhostNet
from attention_ablation.networks.g_ghost import GhostStage
from attention_ablation.networks.record import Backbone
from attention_ablation.study.metrics import CountSize

NONE = Attention()
SE = Attention(pooling="avg", reduction=4)
CBAM = Attention(pooling="avg&max", descriptor="pool", reduction=4)
# The gates of each: one a residual block, or one a dense block.
HOSTS = {
    "ghostnet": 16,
    "ghost-resnet50": 16,
    "ghost-resnet50-s4": 16,
    "g-ghost-regnetx-3.2": 25,
    "res2net50": 16,
    "halonet26t": 8,
    "densenet121": 4,
    "wide-resnet50-2": 16,
}
SMALL = 32  # px


def backbone(name: str, **keys: Any) -> Backbone:
    return Backbone.model_validate({"name": name, **keys})


@pytest.mark.parametrize(
    ("name", "stride", "image_size", "params", "gflops"),
    [
        ("ghostnet", "v1", 224, 5_182_508, "0.141151"),
        ("ghost-resnet50", "v1", 224, 13_953_512, "2.033047"),
        ("ghost-resnet50", "v1.5", 224, 13_953_512, "2.151023"),
        ("ghost-resnet50-s4", "v1", 224, 8_151_752, "1.120584"),
        ("ghost-resnet50-s4", "v1.5", 224, 8_151_752, "1.181943"),
        ("g-ghost-regnetx-3.2", "v1", 224, 10_511_000, "1.801746"),
        ("res2net50", "v1", 224, 25_699_120, "4.255166"),
        ("halonet26t", "v1", 224, 12_479_648, "2.484556"),
        ("halonet26t", "v1", 256, 12_480_288, "3.172811"),
        ("densenet121", "v1", 224, 7_978_856, "2.834162"),
        ("wide-resnet50-2", "v1.5", 224, 68_883_240, "11.398021"),
    ],
)
def test_at_full_size_it_has_the_counts_of_the_published_code(
    name: str, stride: str, image_size: int, params: int, gflops: str
) -> None:
    size = CountSize(classes=1000, image_size=image_size)
    found = measure(backbone(name, stride=stride), NONE, size)
    assert found.gflops is not None
    rounded = Complexity(found.params, round(found.gflops, 6))
    assert rounded == Complexity(params, Decimal(gflops))


@pytest.mark.parametrize(
    ("name", "image_size", "theirs"),
    [
        ("ghostnet", 64, lambda: timm.create_model("ghostnet_100", num_classes=10)),
        # Its blocks are for 256 px.
        ("halonet26t", 256, lambda: timm.create_model("halonet26t", num_classes=10)),
        ("res2net50", 64, lambda: timm.create_model("res2net50_26w_4s", num_classes=10)),
        ("densenet121", 64, lambda: torchvision.models.densenet121(num_classes=10)),
        ("wide-resnet50-2", 64, lambda: torchvision.models.wide_resnet50_2(num_classes=10)),
    ],
)
@torch.no_grad()
def test_with_the_same_weights_it_is_the_librarys_network(
    name: str, image_size: int, theirs: Callable[[], nn.Module]
) -> None:
    reference = theirs().eval()
    ours = build(backbone(name, stride="v1.5"), NONE, 10, image_size).eval()
    for module in reference.modules():  # no two equal, and no branch that starts at 0
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    # Their tensors are in the same order, some under another name.
    tensors = reference.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), tensors, strict=True)))
    x = torch.randn(1, 3, image_size, image_size)
    torch.testing.assert_close(ours(x), reference(x))


def batch_norm(x: Tensor, norm: Any) -> Tensor:
    mean, var, weight, bias = (
        t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    out: Tensor = (x - mean) / (var + norm.eps).sqrt() * weight + bias
    return out


def disturb(model: nn.Module) -> None:
    """Give BatchNorms statistics and weights that no two of them share."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            for tensor in (module.running_mean, module.weight, module.bias):
                nn.init.normal_(tensor)


@pytest.mark.parametrize(("name", "ratio"), [("ghost-resnet50", 2), ("ghost-resnet50-s4", 4)])
@torch.no_grad()
def test_a_ghost_bottleneck_is_its_equations(name: str, ratio: int) -> None:
    model = build(backbone(name, width=0.25, stride="v1.5"), NONE, 10).eval()
    disturb(model)
    block: Any = model.get_submodule("layer2.0")

    def ghost(x: Tensor, module: Any, act: Callable[[Tensor], Tensor], stride: int = 1) -> Tensor:
        conv, norm, _ = module.primary_conv
        depthwise, second, _ = module.cheap_operation
        assert conv.out_channels * ratio == module.out_chs
        own = act(batch_norm(F.conv2d(x, conv.weight, None, stride, conv.padding), norm))
        # Of each map that it makes, ratio - 1 more by a 3x3 filter each.
        others = [
            F.conv2d(own[:, i // (ratio - 1), None], depthwise.weight[i, None], padding=1)
            for i in range(len(depthwise.weight))
        ]
        return torch.cat([own, act(batch_norm(torch.cat(others, 1), second))], 1)

    x = torch.randn(2, 64, 8, 8)
    y = ghost(x, block.conv1, torch.relu)
    y = ghost(y, block.conv2, torch.relu, 2)
    y = ghost(y, block.conv3, lambda y: y) + ghost(x, block.downsample, lambda y: y, 2)
    torch.testing.assert_close(block(x), y.relu())


@torch.no_grad()
def test_a_g_ghost_stage_is_its_equations() -> None:
    stage: Any = GhostStage(6, (16, 6), (4, 3), 4, iter([nn.Identity() for _ in range(4)])).eval()
    disturb(stage)
    assert [len(block.conv2.weight[0]) for block in stage.inner] == [3, 3]
    x = torch.randn(2, 6, 8, 8)
    x0 = stage.first(x)
    assert x0.shape == (2, 16, 4, 4)
    e1 = stage.inner[0](x0[:, :6])
    e2 = stage.inner[1](e1)
    g = torch.cat([x0, e1, e2], 1).mean((2, 3))
    w1, norm1, _, w2, norm2 = stage.mix
    m = batch_norm((g @ w1.weight.T)[:, :, None, None], norm1).relu()
    m = batch_norm((m[:, :, 0, 0] @ w2.weight.T)[:, :, None, None], norm2)
    conv, norm = stage.cheap
    t = batch_norm(torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, 0], x0[:, 6:]), norm)
    expected = stage.last(torch.cat([e2, (t + m).relu()], 1))
    torch.testing.assert_close(stage(x), expected)


@pytest.mark.parametrize("name", HOSTS)
def test_a_small_one_has_its_gates_and_maps_and_a_gradient_everywhere(name: str) -> None:
    host = backbone(name, width=0.25)
    model = build(host, CBAM, 10, SMALL)
    initialise(model, 0)
    assert len([*gates_of(model)]) == HOSTS[name]
    *_, (last, classifier) = model.named_children()
    assert last in CLASSIFIERS
    maps: dict[str, Tensor] = {}
    for stage, module in model.stages.items():
        module.register_forward_hook(lambda _, given, out, stage=stage: maps.update({stage: out}))
    x = torch.randn(2, 3, SMALL, SMALL)
    logits = model(x)
    assert logits.shape == (2, 10)
    assert list(maps) == list(host.network.stages)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    logits = model.eval()(x)
    if name != "ghostnet":  # which has a layer between
        pooled = maps[host.network.stages[-1]].mean((2, 3))
        torch.testing.assert_close(classifier(pooled), logits)


@pytest.mark.parametrize("name", HOSTS)
def test_the_stem_for_small_images_leaves_them_more_pixels(name: str) -> None:
    sides = []
    for stem, attention in ((None, NONE), ("cifar", SE)):
        model = build(backbone(name, width=0.25, stem=stem), attention, 10, SMALL)
        *_, last = model.stages.values()
        last.register_forward_hook(lambda *call: sides.append(call[2].shape[-1]))
        assert model(torch.randn(2, 3, SMALL, SMALL)).shape == (2, 10)
    only_strided = name in ("ghostnet", "g-ghost-regnetx-3.2")  # there is no pooling to leave out
    assert sides == [1, 2 if only_strided else 4]


@pytest.mark.parametrize("width", [0.125, 0.5])
@pytest.mark.parametrize("name", HOSTS)
def test_at_small_widths_the_plain_data_say_the_channels(name: str, width: float) -> None:
    with torch.device("meta"):
        model = build(backbone(name, width=width), CBAM, 10, 64).eval()
        assert model(torch.empty(1, 3, 64, 64)).shape == (1, 10)
    made: Any = [*gates_of(model)]
    gates = [gate[0].attention.channels for gate in made]
    assert gates == list(backbone(name).network.gated_channels(width))


@pytest.mark.parametrize("width", [0.1, 0.35, 0.7, 1.3])
def test_ghostnets_channels_are_timms(width: float) -> None:
    with torch.device("meta"):
        model = build(backbone("ghostnet", width=width), NONE, 10)
    modules: Any = [*model.modules()]
    outputs = [m.ghost2[0].out_chs for m in modules if hasattr(m, "ghost2")]
    assert outputs == GhostNet().channels(width)


@pytest.mark.parametrize(("stem", "size"), [(None, 100), ("cifar", 36)])
def test_halonet_refuses_images_that_its_blocks_cannot_tile(stem: str | None, size: int) -> None:
    reduction = 32 if stem is None else 8
    sentence = f"multiple of {reduction} px, whose last map its blocks tile, got {size} px"
    with pytest.raises(UserError, match=sentence):
        build(backbone("halonet26t", stem=stem), NONE, 10, size)


@pytest.mark.parametrize(
    ("name", "block", "channels"),
    [
        ("ghost-resnet50", "layer1.1", 64),
        ("g-ghost-regnetx-3.2", "stage1.1", 24),
        ("res2net50", "layer1.1", 64),
        ("halonet26t", "features.stages.0.1", 64),
    ],
)
def test_zero_init_makes_a_residual_block_its_shortcut(
    name: str, block: str, channels: int
) -> None:
    model = build(backbone(name, width=0.25), NONE, 10)
    initialise(model, 0, zero_init_residual=True)
    ends: Any = [m for m in model.modules() if hasattr(m, "last_norms")]
    assert len(ends) == HOSTS[name]
    assert not any(norm.weight.any() for end in ends for norm in end.last_norms)
    x = torch.randn(2, channels, 4, 4)
    torch.testing.assert_close(model.get_submodule(block)(x.clone()), x.relu())


def test_a_ghost_branch_at_zero_has_the_gradients_of_its_own_maps_alone() -> None:
    model: Any = build(backbone("ghost-resnet50", width=0.25), NONE, 10)
    initialise(model, 0, zero_init_residual=True)
    block = model.layer1[1]
    own = block.conv3.primary_conv[1]
    x, direction = torch.randn(16, 64, 8, 8), torch.randn(16, 64, 8, 8)
    found = []
    for towards in (direction, torch.cat([direction[:, :32], torch.zeros(16, 32, 8, 8)], dim=1)):
        model.zero_grad()
        (block(x.clone()) * towards).sum().backward()
        found.append(own.weight.grad.clone())
    # The others are normalised: at 0 a gradient through them would be 316 times as large.
    torch.testing.assert_close(*found)
