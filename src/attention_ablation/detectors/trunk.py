"""What every detector has: a classification network's trunk, its weights, and batches of images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import CLASSIFIERS, build
from attention_ablation.networks.published import load_weights
from attention_ablation.networks.record import Backbone


class OnTrunk:
    """A detector's way to the weights of the classification network that it stands on."""

    trunk: Any

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Copy a classification network's state but for its classifier's; see `load_weights`."""
        where = "the detector's backbone, a classification run's of the same attention and width"
        given = {k: value for k, value in state.items() if k.split(".")[0] not in CLASSIFIERS}
        load_weights(self.trunk, given, where)


def build_trunk(backbone: Backbone, attention: Attention) -> nn.ModuleDict:
    """Return the network's children but for the classifier, under their own names."""
    parts = build(backbone, attention, classes=1).named_children()
    return nn.ModuleDict({name: part for name, part in parts if name not in CLASSIFIERS})


class Transform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalise, resize and batch images, in the memory layout of the fastest convolutions."""

    def __init__(
        self,
        shorter: int,
        longer: int,
        mean: Sequence[float],
        std: Sequence[float],
        fixed_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(shorter, longer, [], [], fixed_size=fixed_size)
        del self.image_mean, self.image_std
        # On the device; torchvision would copy lists there for each image, and wait for it.
        self.register_buffer("image_mean", torch.tensor(mean), persistent=False)
        self.register_buffer("image_std", torch.tensor(std), persistent=False)

    def resize(self, image: Tensor, target: Any = None) -> Any:
        """Return the image at the network's size, and its boxes with that `size`, (H, W) px."""
        shorter, longer = sorted(image.shape[-2:])  # resampling the right size would only copy
        if shorter != self.min_size[0] or longer > self.max_size:
            # Of bilinear interpolation only the gradient is not deterministic, and an image has
            # none. In that mode torch would put it together from many operations on a GPU.
            deterministic = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(False)
            try:
                image, target = super().resize(image, target)
            finally:
                torch.use_deterministic_algorithms(deterministic)
        return image, target and {**target, "size": image.shape[-2:]}

    def batch_images(self, images: list[Tensor], size_divisible: int = 1) -> Tensor:
        """Return images of one shape as one batch, none padded: (N, 3, H, W)."""
        return torch.stack(images).contiguous(memory_format=torch.channels_last)
