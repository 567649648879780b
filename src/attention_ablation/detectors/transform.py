"""From a list of images to a batch: torchvision's transform, without what it does for nothing."""

import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class Transform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalise, resize and batch images, in the memory layout in which convolutions are fastest.

    An image that has the right size already is not resampled, which would only copy it.
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return the image and its boxes at the network's size. Shape: (3, H, W), (n, 4) px."""
        height, width = image.shape[-2:]
        if self.fixed_size is not None:
            fits = (width, height) == tuple(self.fixed_size)
        else:
            shorter, longer = sorted((height, width))
            fits = shorter == self.min_size[0] and longer <= self.max_size
        if fits:
            return image, target
        resized: tuple[Tensor, dict[str, Tensor] | None] = super().resize(image, target)
        return resized

    def batch_images(self, images: list[Tensor], size_divisible: int = 1) -> Tensor:
        """Return images of one shape as one batch, none padded: (N, 3, H, W)."""
        return torch.stack(images).contiguous(memory_format=torch.channels_last)
