"""Losses, regions and images of the detectors, each computed anew."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection.ssd import SSD

from attention_ablation.detectors.build import build_detector
from attention_ablation.detectors.faster_rcnn import RegionPool
from attention_ablation.detectors.record import Detector
from attention_ablation.detectors.ssd import L2Norm
from attention_ablation.networks.record import Backbone
from tests.small_detectors import (
    NONE,
    RESNET,
    SIZE,
    VGG,
    empty,
    scene,
    small,
)

pytestmark = pytest.mark.usefixtures("deterministic")


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


@pytest.mark.parametrize("share", [0, 0.02, 0.6])  # at the last, more hard ones than are left
def test_ssds_losses_are_torchvisions_digit_for_digit(share: float) -> None:
    model = small("ssd", VGG)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    corner = drawn(2, 200, 2) * 40
    anchors, truth = torch.cat([corner, corner + 1 + drawn(2, 200, 2) * 20], dim=2)
    targets = [{"boxes": truth[:7], "labels": torch.arange(7) % 3 + 1}, empty()]
    found = torch.where(drawn(200) < share, torch.arange(200) % 7, -1)
    given = [anchors] * 2, [found, torch.full((200,), -1)]
    logits = drawn(2, 200, 4).round(decimals=1).requires_grad_()  # with ties
    offsets = (drawn(2, 200, 4) * 3).requires_grad_()
    head = {"cls_logits": logits, "bbox_regression": offsets}
    numbers = []
    for losses in (
        model.compute_loss(targets, head, *given),
        SSD.compute_loss(model, targets, head, *given),
    ):
        gradients = torch.autograd.grad(sum(losses.values()), [logits, offsets])
        numbers.append([losses["classification"], losses["bbox_regression"], *gradients])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*numbers, strict=True))


def test_the_mean_of_processes_ssd_losses_is_the_loss_of_their_whole_batch() -> None:
    model = small("ssd", Backbone(name="vgg16", width=0.125), NONE).train()  # no BatchNorm
    images = [scene(seed)[0] for seed in range(6)]
    one = {name: value[:1] for name, value in scene(1)[1].items()}
    targets = [scene(0)[1], one, one, empty(), empty(), empty()]
    weights = [p for p in model.parameters() if p.requires_grad]

    def losses_of(part: slice) -> list[torch.Tensor]:
        losses = model(images[part], targets[part])
        return [*losses.values(), *torch.autograd.grad(sum(losses.values()), weights)]

    parts = [slice(0, 2), slice(2, 4), slice(4, 6)]
    whole = losses_of(slice(0, 6))
    matches: list[torch.Tensor] = []

    def noted(own: torch.Tensor) -> torch.Tensor:
        matches.append(own)
        return own

    model.mean_matches = noted
    for part in parts:
        losses_of(part)
    assert matches[0] > matches[1] > matches[2] == 0
    model.mean_matches = lambda _: sum(matches) / 3
    for expected, *given in zip(whole, *map(losses_of, parts), strict=True):
        torch.testing.assert_close(sum(given) / 3, expected)


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


@pytest.mark.parametrize("crop", [14, 6])
def test_a_regions_features_are_bilinear_samples_from_edge_to_edge(crop: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 6, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    corner = torch.rand(7, 2, generator=generator, dtype=torch.float64) * 50
    boxes = torch.cat([corner, corner + 1 + torch.rand(7, 2, generator=generator) * 28], dim=1)
    split = [boxes[:4], boxes[4:]]
    ours = RegionPool(crop)({"0": x}, split, None)
    grids = []
    for x0, y0, x1, y1 in boxes.tolist():
        # Pixels of the 16 times coarser map; -1 and 1 are the centres of its outermost cells.
        rows = torch.linspace(y0, y1, crop, dtype=torch.float64) / 16 / 5 * 2 - 1
        columns = torch.linspace(x0, x1, crop, dtype=torch.float64) / 16 / 8 * 2 - 1
        grids.append(torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1))
    owners = x[[0] * 4 + [1] * 3]
    sampled = nn.functional.grid_sample(owners, torch.stack(grids), align_corners=True)
    expected = nn.functional.max_pool2d(sampled, 2)
    torch.testing.assert_close(ours, expected)
    seed = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((out * seed).sum(), x)[0] for out in (ours, expected)]
    torch.testing.assert_close(*gradients)
    # Beyond the map the border counts.
    whole = [torch.tensor([[0.0, 0, 160, 160]]).double()]
    border = RegionPool(crop)({"0": x[:1]}, whole, None)
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
