"""What a training does to an image and its boxes, by torchvision's transforms."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from attention_ablation.datasets.reading.data import Target

Augmentation = Literal["none", "flip", "ssd"]
# ImageNet's mean, 0 to 255: what a zoomed-out image is surrounded with.
FILL = (124, 116, 104)
# Of Table 7's lineage; SSD's own is 0.5.
ZOOM_OUT = 0.6
_PER_OBJECT = ("labels", "area", "difficult", "crowd")

_TRANSFORMS = {
    "flip": v2.RandomHorizontalFlip(0.5),
    # Liu et al. 2016, 2.2 and 3.6; the IoU crop may cut objects off or down to nothing.
    "ssd": v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut({tv_tensors.Image: FILL, "others": 0}, (1.0, 4.0), ZOOM_OUT),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(0.5),
            v2.SanitizeBoundingBoxes(
                labels_getter=lambda inputs: tuple(inputs[1][k] for k in _PER_OBJECT)
            ),
        ]
    ),
}


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Return the seed of one image in one epoch of a training, whichever process loads it."""
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0])


def augmented(
    image: Tensor, target: Target, augmentation: Augmentation, seed: int
) -> tuple[Tensor, Target]:
    """Return an image, (3, H, W) uint8, and its target as a training sees them.

    'none': as they are. 'flip': mirrored half of the time. 'ssd': photometric distortion, zoom
    out, IoU crop and flip; H and W change. Nothing is resized, which is the detector's. The same
    seed gives the same; torch's own generators stay as they were. `area` stays the original's.
    """
    if augmentation == "none":
        return image, target
    canvas = image.shape[-2:]
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=canvas)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would set the generators of GPUs as well.
        torch.default_generator.manual_seed(seed)
        image, target = _TRANSFORMS[augmentation](
            tv_tensors.Image(image), target | {"boxes": boxes}
        )
    plain = {name: values.as_subclass(Tensor) for name, values in target.items()}
    return image.as_subclass(Tensor), plain
