"""Faster R-CNN sees each image alone, and trains on the anchors and regions of its protocol."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_ablation.detectors.build import build_detector
from attention_ablation.detectors.faster_rcnn import FasterRCNN
from attention_ablation.detectors.record import Detector
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build
from tests.small_detectors import (
    NONE,
    RESNET,
    SMALL_CBAM,
    classifier_state,
    empty,
    scene,
    small,
)

pytestmark = pytest.mark.usefixtures("deterministic")

SMALL_SE = Attention(pooling="avg", reduction=4)


def trained(attention: Attention) -> FasterRCNN:
    """Return a detector whose gates are far from constant, and whose scores are no near ties."""
    model: FasterRCNN = small("faster-rcnn", RESNET, attention)
    model.load_backbone(classifier_state(RESNET, attention))
    generator = torch.Generator().manual_seed(0)
    for head in (model.rpn.head.cls_logits, model.roi_heads.box_predictor.cls_score):
        nn.init.normal_(head.weight, generator=generator)
    return model


def views() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return images of three shapes, two of which are of one."""
    image, target = scene()
    taller = torch.cat([image, image[:, :27]], dim=1)
    wider = torch.cat([image, image[:, :, :27]], dim=2)
    return [taller, wider, image, taller.flip(2)], [target, empty(), target, target]


@pytest.mark.parametrize("attention", [NONE, SMALL_SE, SMALL_CBAM], ids=["none", "se", "cbam"])
def test_images_of_other_shapes_change_nothing_of_an_images_detections(
    attention: Attention,
) -> None:
    model = trained(attention).eval()
    images, _ = views()
    with torch.inference_mode():
        together = model(images)
        alone = [model([image])[0] for image in images]
    assert len(together) == len(images)
    for one, other in zip(together, alone, strict=True):
        assert len(one["scores"]) > 10
        for name in ("boxes", "scores", "labels"):
            torch.testing.assert_close(one[name], other[name], atol=2e-3, rtol=1e-3)


def test_the_network_sees_an_image_and_no_padding() -> None:
    model: Any = build_detector(Detector(name="faster-rcnn"), RESNET, SMALL_CBAM, 3, 60)
    state = classifier_state(RESNET, SMALL_CBAM)
    model.load_backbone(state)
    image = torch.rand(3, 60, 75, generator=torch.Generator().manual_seed(0))
    network: Any = build(RESNET, SMALL_CBAM, 7)
    network.load_state_dict(state)
    maps: list[Tensor] = []
    model.backbone.register_forward_hook(lambda _, __, out: maps.append(out))
    network.layer3.register_forward_hook(lambda _, __, out: maps.append(out))
    boxes: list[Tensor] = []
    model.rpn.anchor_generator.register_forward_hook(lambda _, __, out: boxes.extend(out))
    model.eval()([image])
    network.eval()(model.transform.normalize(image)[None])
    assert maps[0].shape[2:] == (4, 5)  # 60 / 16 and 75 / 16, the last cell reaching over the edge
    torch.testing.assert_close(*maps)
    # Cells are 16 px apart all the same, as in the crops.
    centres = (boxes[0][:, :2] + boxes[0][:, 2:]).view(4, 5, 12, 2) / 2
    assert centres[0, :, 0, 0].tolist() == [8, 24, 40, 56, 72]
    assert centres[:, 0, 0, 1].tolist() == [8, 24, 40, 56]


def test_a_batchs_losses_are_the_means_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(SMALL_CBAM).train()
    for part in (model.rpn, model.roi_heads):  # all that there are, so that nothing is random
        part.fg_bg_sampler.batch_size_per_image = 10**6
    monkeypatch.setattr(model.rpn, "_post_nms_top_n", {"training": 40, "testing": 40})
    images, targets = views()
    together = model(images, targets)
    alone = [model([image], [target]) for image, target in zip(images, targets, strict=True)]
    halves = [model(images[i::2], targets[i::2]) for i in range(2)]  # as two processes have them
    assert len({losses["loss_objectness"].item() for losses in alone}) == 4
    for name, loss in together.items():
        for parts in (alone, halves):
            torch.testing.assert_close(loss, torch.stack([part[name] for part in parts]).mean())


def test_anchors_that_cross_the_images_border_do_not_train() -> None:
    model: Any = small("faster-rcnn", RESNET)
    true = torch.tensor([[0.0, 0, 32, 32], [40, 40, 64, 60]])
    anchors, expected = zip(
        ([0, 0, 32, 32], 1),  # the first box
        ([-1, 0, 32, 32], -1),  # IoU 0.97 with it, over the left edge
        ([0, -8, 32, 32], -1),
        ([0, 0, 32, 60], -1),  # IoU 0.53: neither an object nor none
        ([40, 40, 65, 60], -1),  # IoU 0.96 with the second box, over the right edge
        ([40, 40, 64, 61], -1),  # over the lower edge
        ([32, 30, 64, 60], 1),  # IoU 0.5 with it: the most of those inside
        ([48, 0, 64, 16], 0),  # reaches the corner, and no farther
        ([-9, 40, 9, 60], -1),  # background, over the left edge
        strict=True,
    )
    target = {"boxes": true, "labels": torch.tensor([1, 2]), "size": (60, 64)}
    placed = torch.tensor(anchors).float()
    (labels,), (boxes,) = model.rpn.assign_targets_to_anchors([placed], [target])
    assert labels.tolist() == list(expected)
    assert boxes[[0, 6]].tolist() == true.tolist()


def test_a_box_that_no_anchor_inside_overlaps_makes_none_of_them_an_object() -> None:
    model: Any = small("faster-rcnn", RESNET)
    target = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "size": (64, 64)}
    placed = torch.tensor([[10.0, 10, 30, 30], [20, 20, 60, 60]])
    (labels,), _ = model.rpn.assign_targets_to_anchors([placed], [target])
    assert labels.tolist() == [0, 0]


def test_an_image_without_an_anchor_inside_trains_no_proposals() -> None:
    model = small("faster-rcnn", RESNET).train()
    flat = {"boxes": torch.tensor([[10.0, 0, 60, 4]]), "labels": torch.tensor([1])}
    losses = model([torch.rand(3, 4, 100)], [flat])
    assert losses["loss_objectness"] == losses["loss_rpn_box_reg"] == 0
    assert losses["loss_classifier"] > 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_true_boxes_are_not_among_the_regions_to_train_on() -> None:
    model: Any = small("faster-rcnn", RESNET)
    target = {"boxes": torch.tensor([[0.0, 0, 32, 32]]), "labels": torch.tensor([2])}
    proposals = torch.tensor(
        [[0.0, 0, 32, 48], [0, 16, 32, 48], [40, 40, 60, 60]]  # IoU 2/3, 1/3 and 0
    )
    (regions,), _, (labels,), (offsets,) = model.roi_heads.select_training_samples(
        [proposals], [target]
    )
    assert regions.tolist() == proposals.tolist()
    assert labels.tolist() == [2, 0, 0]
    # From the centre (16, 24) to (16, 16) and from a height of 48 to 32 px.
    expected = torch.tensor([0, 10 * -8 / 48, 0, 5 * math.log(32 / 48)])
    torch.testing.assert_close(offsets[0], expected)


@pytest.mark.parametrize("missed", [[0], [0, 1]])
def test_an_image_without_a_proposal_trains_no_region_and_has_no_detection(
    missed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(SMALL_CBAM)
    plain = model.rpn.filter_proposals

    def fewer(*given: Any) -> tuple[list[Tensor], list[Tensor]]:
        boxes, scores = plain(*given)
        return [x[:0] if i in missed else x for i, x in enumerate(boxes)], scores

    monkeypatch.setattr(model.rpn, "filter_proposals", fewer)
    images, targets = zip(scene(0), scene(1), strict=True)
    losses = model.train()(list(images), list(targets))
    nothing = len(missed) == 2
    assert (losses["loss_classifier"] == 0) == nothing
    assert losses["loss_objectness"] > 0
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "attention.norm" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    with torch.inference_mode():
        found = [len(image["boxes"]) for image in model.eval()(list(images))]
    assert [count == 0 for count in found] == [i in missed for i in range(2)]
