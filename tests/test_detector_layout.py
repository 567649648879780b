"""The detectors' layout against the paper's counts and closed forms."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torchvision.models import resnet50, resnet101
from torchvision.models.detection.image_list import ImageList

from attention_ablation.base.errors import UserError
from attention_ablation.detectors.build import build_detector
from attention_ablation.detectors.record import Detector, check_fit, gated_channels
from attention_ablation.gates.cbam import ChannelAttention
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone
from tests.small_detectors import (
    CBAM,
    MOBILENET,
    NONE,
    RESNET,
    SE,
    SIZE,
    VGG,
    count,
    small,
)


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


@pytest.mark.parametrize(
    ("name", "backbone", "attention", "sentence"),
    [
        (
            "ssd",
            "resnet18",
            NONE,
            "backbone of ssd among mobilenet, mobilenet-0.7, vgg16, got 'res",
        ),
        ("faster-rcnn", "vgg16", NONE, "backbone of faster-rcnn among .*resnet18, "),
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
