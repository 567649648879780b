"""From a spec's detector, backbone and attention to an initialised detector."""

from collections.abc import Sequence

import torch
from torch import nn

from attention_ablation.datasets.contract import IMAGENET_MEAN, IMAGENET_STD
from attention_ablation.detectors.faster_rcnn import LONGEST, FasterRCNN
from attention_ablation.detectors.record import Detector, check_detector
from attention_ablation.detectors.ssd import GatedSources, SingleShot
from attention_ablation.detectors.stairnet import StairFeatures
from attention_ablation.detectors.trunk import Transform
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import initialise
from attention_ablation.networks.record import Backbone


def build_detector(
    detector: Detector,
    backbone: Backbone,
    attention: Attention,
    classes: int,
    image_size: int,
    longest: int | None = None,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> nn.Module:
    """Return the detector, not yet initialised, with torchvision's interface.

    In training `model(images, targets)` returns the losses by part, in evaluation `model(images)`
    each image's `boxes` (n, 4), `scores` (n,) and `labels` (n,). Images are (3, H, W) from 0 to 1;
    targets, on the CPU, have `boxes` (n, 4), float, as x0, y0, x1, y1 in px, and `labels` (n,),
    int64, from 1; n may be 0.

    Args:
        classes: without the background, which is class 0.
        image_size: the side of the input, px; Faster R-CNN's shorter one.
        longest: Faster R-CNN's longer side at most, px; None: 5/3 of the shorter.
        mean, std: of the images' channels.

    Raises UserError where the detector does not stand on the backbone, and ValueError where a gate
    does not fit its channels.
    """
    check_detector(detector, backbone, "detector")
    if detector.name == "faster-rcnn":
        limit = longest or round(image_size * LONGEST)
        transform = Transform(image_size, limit, mean, std)
        return FasterRCNN(detector, backbone, attention, classes, transform)
    size = (image_size, image_size)
    transform = Transform(*size, mean, std, fixed_size=size)
    features = GatedSources if detector.name == "ssd" else StairFeatures
    return SingleShot(features(detector, backbone, attention), backbone, classes, transform)


@torch.no_grad()
def initialise_detector(model: nn.Module, seed: int) -> None:
    """Initialise the backbone as the classification network of that seed, and the new layers.

    Those start as in their papers; the gates, and StairNet's, of which its paper does not say, as
    the backbone's.
    """
    initialise(model, seed)
    initialise(model.trunk, seed)  # type: ignore[arg-type]
    model.initialise_heads(seed)  # type: ignore[operator]
