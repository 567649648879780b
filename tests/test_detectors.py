"""Detectors against the paper's counts, closed forms, and losses computed anew."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50, resnet101
from torchvision.models.detection.image_list import ImageList

from attention_ablation.attention.channel import ChannelAttention
from attention_ablation.models.build import build, initialise
from attention_ablation.models.detection.build import build_detector, initialise_detector
from attention_ablation.models.detection.faster_rcnn import RegionPool
from attention_ablation.models.detection.sources import L2Norm
from attention_ablation.study.detectors import gated_channels
from attention_ablation.study.errors import UserError
from attention_ablation.study.files import check_fit
from attention_ablation.study.spec import Attention, Backbone, Detector

NONE, SE = Attention(), Attention(pooling="avg")
CBAM = Attention(pooling="avg&max", descriptor="pool")
SMALL_CBAM = Attention(pooling="avg&max", descriptor="pool", reduction=4)
VGG = Backbone(name="vgg16", width=0.125, norm=True)
MOBILENET = Backbone(name="mobilenet", width=0.25)
RESNET = Backbone(name="resnet18", width=0.25)
BOTTLENECK = Backbone(name="resnet50", width=0.125)
PAIRS = [
    ("ssd", VGG),
    ("ssd", MOBILENET),
    ("stairnet", VGG),
    ("stairnet", MOBILENET),
    ("faster-rcnn", RESNET),
    ("faster-rcnn", BOTTLENECK),
]
by_pair = pytest.mark.parametrize(
    ("name", "backbone"), PAIRS, ids=[f"{name}-{backbone.name}" for name, backbone in PAIRS]
)
SIZE = 64


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """Trainings run with deterministic algorithms only, on one thread here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def small(name: str, backbone: Backbone, attention: Attention = SMALL_CBAM) -> Any:
    fewer = {"regions": 32, "proposals": 50} if name == "faster-rcnn" else {}
    detector = Detector.model_validate({"name": name, "width": 0.25, **fewer})
    model = build_detector(detector, backbone, attention, 3, SIZE)
    initialise_detector(model, 0)
    return model


def classifier_state(backbone: Backbone, attention: Attention) -> dict[str, Tensor]:
    """Return the weights of a classification network as if it had been trained."""
    model = build(backbone, attention, 7)
    initialise(model, 1)
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.running_mean, std=0.1, generator=generator)
    return model.state_dict()


def scene(seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an image of bright rectangles, one of every size that a map is for."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, SIZE, SIZE, generator=generator) * 0.2
    sides = torch.tensor([8.0, 13, 20, 30, 40, 60])
    corner = torch.rand(6, 2, generator=generator) * (SIZE - sides)[:, None]
    boxes = torch.cat([corner, corner + sides[:, None]], dim=1)
    labels = torch.arange(6) % 3 + 1
    for (x0, y0, x1, y1), label in zip(boxes.int().tolist(), labels, strict=True):
        image[label - 1, y0:y1, x0:x1] += 0.4
    return image.clamp(max=1), {"boxes": boxes, "labels": labels}


def empty() -> dict[str, Tensor]:
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("backbone", "name", "attention", "params"),
    [
        ("vgg16", "ssd", NONE, 26_515_936),
        ("vgg16", "stairnet", NONE, 32_005_600),
        ("vgg16", "stairnet", SE, 32_056_384),
        ("vgg16", "stairnet", CBAM, 32_056_984),
        ("mobilenet", "ssd", NONE, 5_813_536),
        ("mobilenet", "stairnet", NONE, 5_981_600),
        ("mobilenet", "stairnet", SE, 5_994_704),
        ("mobilenet", "stairnet", CBAM, 5_995_304),
    ],
)
def test_table_7s_detectors_have_the_papers_parameters(
    backbone: str, name: str, attention: Attention, params: int
) -> None:
    detector = Detector.model_validate({"name": name})
    with torch.device("meta"):
        model = build_detector(detector, Backbone(name=backbone), attention, 20, 300)
    assert count(model) == params
    gates = [m.mlp[0].in_features for m in model.modules() if isinstance(m, ChannelAttention)]
    assert gates == ([] if attention == NONE else gated_channels(detector, Backbone(name=backbone)))


@pytest.mark.parametrize(("name", "reference"), [("resnet50", resnet50), ("resnet101", resnet101)])
@pytest.mark.parametrize("attention", [NONE, CBAM])
def test_table_6s_detectors_are_a_trunk_and_three_heads(
    name: str, reference: Any, attention: Attention
) -> None:
    with torch.device("meta"):
        model = build_detector(
            Detector(name="faster-rcnn"), Backbone(name=name), attention, 80, 600, 1000
        )
        theirs = reference()
    # Each of a ResNet's 16 or 33 gates: an MLP with biases, 2 x 7 x 7 weights, a BatchNorm.
    gates = 0
    if attention == CBAM:
        for stage, planes in zip(
            ("layer1", "layer2", "layer3", "layer4"), (256, 512, 1024, 2048), strict=True
        ):
            one = 2 * planes * (planes // 16) + planes // 16 + planes + 98 + 2
            gates += len(getattr(theirs, stage)) * one
    trunk = count(theirs) - (2048 * 1000 + 1000) + gates
    proposals = (1024 * 9 * 512 + 512) + (512 + 1) * 12 * (1 + 4)
    regions = (2048 + 1) * 81 * (1 + 4)
    assert count(model) == trunk + proposals + regions


@pytest.mark.parametrize("name", ["ssd", "stairnet"])
@pytest.mark.parametrize(
    ("backbone", "sides"),
    [("vgg16", [38, 19, 10, 5, 3, 1]), ("mobilenet", [19, 10, 5, 3, 2, 1])],
)
def test_maps_of_300_px_have_the_papers_sides(name: str, backbone: str, sides: list[int]) -> None:
    with torch.device("meta"):
        detector = Detector.model_validate({"name": name})
        model: Any = build_detector(detector, Backbone(name=backbone), NONE, 20, 300)
        maps = model.backbone(torch.empty(2, 3, 300, 300)).values()
    assert [tuple(x.shape[2:]) for x in maps] == [(side, side) for side in sides]


@pytest.mark.parametrize("size", [16, 33, 61, 96, 100, 127, 128, 161, 300, 511])
@pytest.mark.parametrize("backbone", [VGG, MOBILENET])
def test_the_top_down_path_fits_every_image_size(backbone: Backbone, size: int) -> None:
    with torch.device("meta"):
        model: Any = build_detector(Detector(name="stairnet"), backbone, NONE, 3, size)
        # Not square: the two sides meet different paddings.
        image = torch.empty(2, 3, size, size + 37)
        sources = model.backbone.sources(image)
        maps = model.backbone(image).values()
    assert [x.shape[2:] for x in maps] == [x.shape[2:] for x in sources]
    assert all(min(x.shape[2:]) >= 1 for x in sources)
    assert all(fine.shape[3] >= coarse.shape[3] for fine, coarse in pairwise(sources))


VGG_SIDES = [30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0]
MOBILENET_SIDES = [60.0, 105.0, 150.0, 195.0, 240.0, 285.0, 300.0]


@pytest.mark.parametrize(
    ("backbone", "grids", "steps", "sides", "total"),
    [
        ("vgg16", (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300), VGG_SIDES, 11_620),
        ("mobilenet", (19, 10, 5, 3, 2, 1), None, MOBILENET_SIDES, 2_990),
    ],
)
def test_default_boxes_at_300_px_are_the_closed_form(
    backbone: str,
    grids: tuple[int, ...],
    steps: tuple[int, ...] | None,
    sides: list[float],
    total: int,
) -> None:
    tiny = Backbone(name=backbone, width=0.125)
    model: Any = build_detector(Detector(name="ssd", width=0.125), tiny, NONE, 20, 300)
    images = ImageList(torch.empty(1, 3, 300, 300), [(300, 300)])
    (ours,) = model.anchor_generator(images, [torch.empty(1, 1, g, g) for g in grids])
    expected = []
    for i, grid in enumerate(grids):
        step = steps[i] if steps else 300 / grid
        small, large = sides[i], math.sqrt(sides[i] * sides[i + 1])
        shapes = [(small, small), (large, large)]
        for ratio in (2, 3) if i < 4 else (2,):
            wide = (small * math.sqrt(ratio), small / math.sqrt(ratio))
            shapes += [wide, wide[::-1]]
        for row in range(grid):
            for column in range(grid):
                x, y = (column + 0.5) * step, (row + 0.5) * step
                for w, h in ((min(w, 300), min(h, 300)) for w, h in shapes):
                    expected.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    assert len(expected) == total
    torch.testing.assert_close(ours, torch.tensor(expected), atol=1e-3, rtol=0)


def test_default_boxes_of_another_size_cover_the_image_evenly() -> None:
    model = small("ssd", VGG)
    image = torch.empty(1, 3, SIZE, SIZE)
    maps = list(model.backbone(image.fill_(0.5)).values()) if model.eval() else []
    (boxes,) = model.anchor_generator(ImageList(image, [(SIZE, SIZE)]), maps)
    assert [x.shape[3] for x in maps] == [8, 4, 2, 1, 1, 1]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert ((centres > 0) & (centres < SIZE)).all()
    torch.testing.assert_close(centres.mean(dim=0), torch.full((2,), SIZE / 2))


def test_anchors_are_the_protocols_at_600_px_and_keep_their_share() -> None:
    for size in (600, 150):
        model: Any = build_detector(
            Detector(name="faster-rcnn", width=0.125), RESNET, NONE, 3, size
        )
        images = ImageList(torch.empty(1, 3, 48, 64), [(48, 64)])
        (boxes,) = model.rpn.anchor_generator(images, [torch.empty(1, 1, 3, 4)])
        boxes = boxes.view(3, 4, 12, 4)  # rows, columns, anchors of a cell
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        assert centres[1, 2].tolist() == [[2 * 16 + 8, 16 + 8]] * 12
        w, h = (boxes[0, 0, :, 2:] - boxes[0, 0, :, :2]).unbind(1)
        for side in (64, 128, 256, 512):
            for ratio in (0.5, 1, 2):
                side_here = side * size / 600
                want = (side_here / math.sqrt(ratio), side_here * math.sqrt(ratio))
                # torchvision rounds half of each side.
                assert ((w - want[0]).abs().le(1) & (h - want[1]).abs().le(1)).any()


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
    with pytest.raises(UserError, match=f"lack '{key}'; take those of a classification run"):
        model.load_backbone(lacking)
    with pytest.raises(UserError, match=r"have 'layer9.weight', which it has not"):
        model.load_backbone({**state, "layer9.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=rf"have '{key}' as \(2, 3\), not \("):
        model.load_backbone({**state, key: torch.zeros(2, 3)})
    assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())


def test_ssds_losses_are_those_computed_anew() -> None:
    model = small("ssd", VGG).train()
    scenes = [scene(0), scene(1)]
    images = [image for image, _ in scenes]
    targets = [target for _, target in scenes]
    kept: dict[str, Any] = {}
    model.head.register_forward_hook(lambda _, __, out: kept.update(out))
    model.anchor_generator.register_forward_hook(lambda _, __, out: kept.update(boxes=out[0]))
    losses = model(images, targets)
    defaults = kept["boxes"].tolist()
    box_loss = class_loss = 0.0
    matched = 0
    for i, target in enumerate(targets):
        truth = target["boxes"].tolist()
        overlaps = [[iou(t, d) for d in defaults] for t in truth]
        owner = [-1] * len(defaults)
        for d in range(len(defaults)):
            best = max(range(len(truth)), key=lambda t: overlaps[t][d])
            if overlaps[best][d] >= 0.5:
                owner[d] = best
        for t, row in enumerate(overlaps):  # every box has a match, its best
            owner[row.index(max(row))] = t
        logits = kept["cls_logits"][i].double().log_softmax(dim=1)
        positive, negative = [], []
        for d, t in enumerate(owner):
            if t < 0:
                negative.append(-logits[d, 0].item())
                continue
            positive.append(-logits[d, int(target["labels"][t])].item())
            want = offsets(truth[t], defaults[d])
            got = kept["bbox_regression"][i, d].tolist()
            box_loss += sum(
                0.5 * e * e if e < 1 else e - 0.5
                for e in (abs(g - w) for g, w in zip(got, want, strict=True))
            )
        matched += len(positive)
        class_loss += sum(positive) + sum(sorted(negative)[-3 * len(positive) :])
    assert matched >= 12
    assert losses["bbox_regression"].item() == pytest.approx(box_loss / matched, rel=1e-4)
    assert losses["classification"].item() == pytest.approx(class_loss / matched, rel=1e-4)


def iou(a: list[float], b: list[float]) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)


def offsets(box: list[float], default: list[float]) -> list[float]:
    """Return centre and log size of a box against a default box, over the variances."""
    w, h = default[2] - default[0], default[3] - default[1]
    return [
        (box[0] + box[2] - default[0] - default[2]) / 2 / w / 0.1,
        (box[1] + box[3] - default[1] - default[3]) / 2 / h / 0.1,
        math.log((box[2] - box[0]) / w) / 0.2,
        math.log((box[3] - box[1]) / h) / 0.2,
    ]


def test_a_regions_features_are_bilinear_samples_from_edge_to_edge() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 6, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    corner = torch.rand(7, 2, generator=generator, dtype=torch.float64) * 50
    boxes = torch.cat([corner, corner + 1 + torch.rand(7, 2, generator=generator) * 28], dim=1)
    split = [boxes[:4], boxes[4:]]
    ours = RegionPool()({"0": x}, split, None)
    grids = []
    for x0, y0, x1, y1 in boxes.tolist():
        # Pixels of the 16 times coarser map; -1 and 1 are the centres of its outermost cells.
        rows = torch.linspace(y0, y1, 14, dtype=torch.float64) / 16 / 5 * 2 - 1
        columns = torch.linspace(x0, x1, 14, dtype=torch.float64) / 16 / 8 * 2 - 1
        grids.append(torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1))
    owners = x[[0] * 4 + [1] * 3]
    sampled = nn.functional.grid_sample(owners, torch.stack(grids), align_corners=True)
    expected = nn.functional.max_pool2d(sampled, 2)
    torch.testing.assert_close(ours, expected)
    seed = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((out * seed).sum(), x)[0] for out in (ours, expected)]
    torch.testing.assert_close(*gradients)
    # Beyond the map the border counts.
    border = RegionPool()({"0": x[:1]}, [torch.tensor([[0.0, 0, 160, 160]]).double()], None)
    torch.testing.assert_close(border[0, :, -1, -1], x[0, :, -1, -1])


def test_a_regions_box_loss_bends_at_one() -> None:
    model = small("faster-rcnn", RESNET).train()
    image, target = scene()
    kept: dict[str, Any] = {}
    select = model.roi_heads.select_training_samples

    def selected(*given: Any) -> Any:
        out = select(*given)
        kept.update(labels=out[2][0], offsets=out[3][0])
        return out

    model.roi_heads.select_training_samples = selected
    nn.init.constant_(model.roi_heads.box_predictor.bbox_pred.weight, 0)
    losses = model([image], [target])  # so that every predicted offset is 0
    foreground = kept["labels"] > 0
    assert foreground.sum() >= 6
    error = kept["offsets"][foreground].abs()
    expected = torch.where(error < 1, error**2 / 2, error - 0.5).sum() / len(foreground)
    torch.testing.assert_close(losses["loss_box_reg"], expected)


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


@pytest.mark.parametrize("stride", ["v1", "v1.5"])
def test_layer4_keeps_a_regions_map_and_the_batchnorms_their_statistics(stride: str) -> None:
    backbone = Backbone.model_validate({"name": "resnet50", "width": 0.125, "stride": stride})
    model = small("faster-rcnn", backbone).train()
    shapes: list[torch.Size] = []
    model.roi_heads.box_head.layer4.register_forward_hook(
        lambda _, given, out: shapes.extend([given[0].shape, out.shape])
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image, target = scene()
    model([image], [target])
    assert shapes[0][1:] == (128, 7, 7)
    assert shapes[1][1:] == (256, 7, 7)
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_an_image_of_another_size_is_resized_and_normalised() -> None:
    detector = Detector(name="ssd", width=0.25)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    model: Any = build_detector(detector, VGG, NONE, 3, SIZE, mean=mean, std=std)
    target = {"boxes": torch.tensor([[10.0, 20, 50, 60]]), "labels": torch.tensor([1])}
    wide = torch.full((3, SIZE // 2, SIZE * 2), 0.5)
    batch, (resized, same) = model.transform([wide, scene()[0]], [target, target])
    assert batch.tensors.shape == (2, 3, SIZE, SIZE)
    torch.testing.assert_close(batch.tensors[0, :, 0, 0], torch.tensor([0.8, 1.2, 0.1]))
    assert resized["boxes"].tolist() == [[5, 40, 25, 120]]
    assert same["boxes"].tolist() == target["boxes"].tolist()
    faster: Any = build_detector(Detector(name="faster-rcnn"), RESNET, NONE, 3, 60, 100)
    sizes = [faster.transform([torch.rand(3, *s)])[0].image_sizes[0] for s in ((30, 40), (30, 90))]
    assert sizes == [(60, 80), (33, 100)]  # the longer side limits the second


def test_l2norm_gives_every_position_the_learned_length() -> None:
    norm = L2Norm(5)
    x = torch.rand(2, 5, 3, 4) + 0.1
    torch.testing.assert_close(norm(x).norm(dim=1), torch.full((2, 3, 4), 20.0))


@pytest.mark.parametrize(
    ("name", "backbone", "attention", "sentence"),
    [
        (
            "ssd",
            "resnet18",
            NONE,
            "backbone of ssd among mobilenet, mobilenet-0.7, vgg16, got 'res",
        ),
        ("faster-rcnn", "vgg16", NONE, "backbone of faster-rcnn among resnet18, "),
        (None, "vgg16", SE, "expected no attention in vgg16, which has no gates, got 'se'"),
        ("stairnet", "vgg16", Attention(pooling="avg", reduction=300), "at most 256, the fewest"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    name: str | None, backbone: str, attention: Attention, sentence: str
) -> None:
    detector = Detector.model_validate({"name": name}) if name else None
    with pytest.raises(UserError, match=sentence):
        check_fit(attention, Backbone(name=backbone), "rows.csv line 2", detector)


def test_widths_without_a_channel_are_refused() -> None:
    with pytest.raises(UserError, match="width that leaves vgg16 a channel everywhere"):
        check_fit(NONE, Backbone(name="vgg16", width=0.01), "tier")
    with pytest.raises(UserError, match="detector width that leaves ssd a channel everywhere"):
        check_fit(NONE, Backbone(name="vgg16"), "tier", Detector(name="ssd", width=0.001))
    with pytest.raises(ValueError, match="'norm' has no meaning for resnet18"):
        Backbone(name="resnet18", norm=True)
    with pytest.raises(ValueError, match="'regions' has no meaning for ssd"):
        Detector(name="ssd", regions=64)
