"""A ResNet's bottleneck with Ghost modules for its convolutions (GhostNet, arXiv:1911.11907)."""

from collections.abc import Sequence
from typing import Any

from timm.models.ghostnet import GhostModule
from torch import nn

from attention_ablation.networks.resnet import Bottleneck


class GhostBottleneck(Bottleneck):
    """A bottleneck whose convolutions, the shortcut's too, are timm's Ghost modules.

    A module makes C / ratio maps by a convolution, the others from them by depthwise 3x3
    convolutions, a BatchNorm after each; the last one's and the shortcut's have no ReLU.
    Shape: (N, C, H, W) -> (N, C', ...).
    """

    def __init__(
        self,
        inputs: int,
        channels: Sequence[int],
        strides: Sequence[int],
        groups: int,
        ratio: int = 2,
    ) -> None:
        super().__init__(inputs, channels, strides, groups)

        def ghost(conv: Any, act_layer: type[nn.Module]) -> GhostModule:
            return GhostModule(
                *(conv.in_channels, conv.out_channels, conv.kernel_size[0], ratio),
                stride=conv.stride[0],
                act_layer=act_layer,
            )

        for i in (1, 2, 3):
            act_layer = nn.Identity if i == 3 else nn.ReLU
            setattr(self, f"conv{i}", ghost(getattr(self, f"conv{i}"), act_layer))
            setattr(self, f"bn{i}", nn.Identity())  # it is in the module
        if self.downsample is not None:
            self.downsample = ghost(self.downsample[0], nn.Identity)  # type: ignore[index]

    @property
    def last_norms(self) -> Sequence[Any]:
        """The BatchNorms of the last module: of its own maps, and of the maps made from them.

        Where the own maps are 0, the second divides by the root of its epsilon, 1e-5. Were its
        weight not 0 as well, gradients would come through it 316 times as large.
        """
        return [
            self.get_submodule(f"conv3.{part}.1") for part in ("primary_conv", "cheap_operation")
        ]
