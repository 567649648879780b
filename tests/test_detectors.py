"""What holds for every detector: gradients, a falling loss, seeds, weights taken over."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_ablation.base.errors import UserError
from attention_ablation.detectors.build import initialise_detector
from attention_ablation.detectors.record import Detector
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from attention_ablation.spec.spec import DetectionSpec
from attention_ablation.study.files import load_tier
from tests.conftest import ROOT
from tests.small_detectors import (
    NONE,
    PAIRS,
    SE,
    SIZE,
    SMALL_CBAM,
    by_pair,
    classifier_state,
    empty,
    scene,
    small,
)

PLAIN_VGG = Backbone(name="vgg16", width=0.125)

pytestmark = pytest.mark.usefixtures("deterministic")


@by_pair
def test_it_trains_and_every_trainable_weight_gets_a_gradient(
    name: str, backbone: Backbone
) -> None:
    model = small(name, backbone)
    gates_in_backbone = name == "faster-rcnn"
    attention = SMALL_CBAM if gates_in_backbone else NONE
    model.load_backbone(classifier_state(backbone, attention))
    for gate_norm in (m for n, m in model.named_modules() if n.endswith("attention.norm")):
        nn.init.ones_(gate_norm.weight)  # at its first 0 the convolution before it learns nothing
    model.train()
    torch.manual_seed(0)
    scenes = [scene(seed) for seed in range(8)]
    losses = model([image for image, _ in scenes], [target for _, target in scenes])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values()), losses
    sum(losses.values()).backward()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    for key, parameter in model.named_parameters():
        if key in frozen:
            assert parameter.grad is None, key
        else:
            assert parameter.grad is not None, key
            assert parameter.grad.any(), key
    if not gates_in_backbone:
        assert not frozen
        return
    for key, _ in model.named_parameters():
        in_norm = ".bn" in key or ".downsample.1" in key or "attention.norm" in key
        fixed = key.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))
        assert (key in frozen) == (in_norm or fixed), key
    assert any("layer1.0.gate" in key for key in frozen)


@by_pair
def test_the_loss_on_a_scene_falls(name: str, backbone: Backbone) -> None:
    model = small(name, backbone)
    attention = SMALL_CBAM if name == "faster-rcnn" else NONE
    model.load_backbone(classifier_state(backbone, attention))
    # Faster R-CNN's BatchNorms are frozen, so that one image is enough.
    scenes = [scene(seed) for seed in range(1 if name == "faster-rcnn" else 2)]
    images, targets = [image for image, _ in scenes], [target for _, target in scenes]
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=0.01)
    torch.manual_seed(0)
    model.train()
    totals = []
    for _ in range(25):
        optimizer.zero_grad()
        total = sum(model(images, targets).values())
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-3:]) < 0.7 * sum(totals[:3]), totals


@by_pair
def test_detections_lie_in_the_image_and_one_image_does_not_change_anothers(
    name: str, backbone: Backbone
) -> None:
    model = small(name, backbone).eval()
    images = [scene(seed)[0] for seed in (0, 1)]
    with torch.inference_mode():
        together = model(images)
        alone = model(images[1:])[0]
        twice_as_large = model([nn.functional.interpolate(images[0][None], scale_factor=2)[0]])[0]
    for found, limit in ((together[0], SIZE), (together[1], SIZE), (twice_as_large, 2 * SIZE)):
        boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
        assert len(boxes) == len(scores) == len(labels) > 0
        assert boxes.min() >= 0
        assert boxes.max() <= limit
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
        assert set(labels.tolist()) <= {1, 2, 3}
        assert scores.diff().le(0).all()
        assert twice_as_large["boxes"].max() > SIZE
    torch.testing.assert_close(together[1]["scores"], alone["scores"], atol=1e-4, rtol=1e-3)


@by_pair
def test_images_without_a_box_are_accepted(name: str, backbone: Backbone) -> None:
    model = small(name, backbone).train()
    torch.manual_seed(0)
    image, target = scene()
    for targets in ([target, empty()], [empty(), empty()]):
        losses = model([image, image], targets)
        assert all(loss.isfinite() for loss in losses.values()), losses
        sum(losses.values()).backward()
    boxes = {key: loss.item() for key, loss in losses.items() if "reg" in key}
    assert set(boxes.values()) == {0.0}, boxes


@by_pair
def test_a_seed_fixes_weights_and_losses(name: str, backbone: Backbone) -> None:
    image, target = scene()
    first, second = small(name, backbone).train(), small(name, backbone).train()
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    both = []
    for model in (first, second):
        torch.manual_seed(5)
        losses = model([image, image], [target, target])
        sum(losses.values()).backward()
        both.append([*losses.values(), *(p.grad for p in model.parameters() if p.requires_grad)])
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
    initialise_detector(second, 1)
    parameters = zip(first.named_parameters(), second.parameters(), strict=True)
    for (key, one), other in parameters:
        if key.endswith("weight") and one.dim() == 4:
            assert not torch.equal(one, other), key


@by_pair
def test_the_backbone_starts_as_the_classification_network_of_the_seed(
    name: str, backbone: Backbone
) -> None:
    attention = SMALL_CBAM if name == "faster-rcnn" else NONE
    network = build(backbone, attention, 7)
    initialise(network, 0)
    trunk = small(name, backbone).trunk.state_dict()
    theirs = {k: v for k, v in network.state_dict().items() if k.split(".")[0] not in LAST}
    assert trunk.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in trunk.items())


LAST = ("fc", "classifier")


@by_pair
def test_a_classification_networks_weights_are_taken_over(name: str, backbone: Backbone) -> None:
    attention = SMALL_CBAM if name == "faster-rcnn" else NONE
    state = classifier_state(backbone, attention)
    model = small(name, backbone)
    model.load_backbone(state)
    assert all(torch.equal(value, state[key]) for key, value in model.trunk.state_dict().items())
    # The map that comes out of it is the classification network's own.
    network: Any = build(backbone, attention, 7)
    network.load_state_dict(state)
    image = scene()[0][None]
    seen: list[Tensor] = []
    if name == "faster-rcnn":
        network.layer3.register_forward_hook(lambda _, __, out: seen.append(out))
        ours = model.eval().backbone(image)
    else:
        network.features.register_forward_hook(lambda _, __, out: seen.append(out))
        ours = model.eval().backbone.sources(image)[1]
    network.eval()(image)
    torch.testing.assert_close(ours, seen[0])


@by_pair
def test_weights_of_another_network_are_refused_by_name(name: str, backbone: Backbone) -> None:
    attention = SMALL_CBAM if name == "faster-rcnn" else NONE
    state = classifier_state(backbone, attention)
    model = small(name, backbone)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    key = next(iter(model.trunk.state_dict()))
    lacking = {k: v for k, v in state.items() if k != key}
    with pytest.raises(UserError, match=f"a classification run.*; missing: {key}."):
        model.load_backbone(lacking)
    with pytest.raises(UserError, match=r"left over: layer9.weight"):
        model.load_backbone({**state, "layer9.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=rf"of another shape: {key} is \(2, 3\) and not \("):
        model.load_backbone({**state, key: torch.zeros(2, 3)})
    assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())


@by_pair
def test_under_autocast_boxes_and_losses_keep_full_precision(name: str, backbone: Backbone) -> None:
    model = small(name, backbone)
    image, target = scene()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.train()([image, image], [target, target])
        found = model.eval()([image])[0]
    assert all(loss.isfinite() for loss in losses.values())
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32


@pytest.mark.parametrize("attention", [NONE, SE, SMALL_CBAM], ids=["none", "se", "cbam"])
@pytest.mark.parametrize(
    ("name", "backbone"), [*PAIRS, *((name, PLAIN_VGG) for name in ("ssd", "stairnet"))]
)
def test_a_batch_needs_two_images_where_a_batchnorm_is_trained(
    name: str, backbone: Backbone, attention: Attention
) -> None:
    model = small(name, backbone, attention).train()
    trained = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    tier = load_tier(ROOT / "workflow/tiers", "quick", "a test")
    detector = Detector.model_validate({"name": name})
    recipe = tier.detection[detector.name].recipe
    spec = DetectionSpec(backbone=backbone, attention=attention, detector=detector, recipe=recipe)
    assert spec.least_batch == (2 if trained else 1)
