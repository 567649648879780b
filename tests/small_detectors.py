"""Detectors small enough for tests, a scene, and the weights of a classification network."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attention_ablation.detectors.build import build_detector, initialise_detector
from attention_ablation.detectors.record import Detector
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone

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
