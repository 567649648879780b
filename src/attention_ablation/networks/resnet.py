"""ResNet, ResNeXt and WideResNet: torchvision's classes with a gate in every block."""

from typing import Any

from torch import Tensor, nn
from torchvision.models import resnet

from attention_ablation.gates.gate import build_gate
from attention_ablation.gates.record import Attention
from attention_ablation.networks.shapes import ResNetShape

# The stem keeps its channels when the stages are widened (WideResNet18, Table 4).
STEM_CHANNELS = 64


class BasicBlock(resnet.BasicBlock):  # type: ignore[misc]
    """Two 3x3 convolutions, the gate, then the shortcut. (N, C, H, W) -> (N, C', H/s, W/s)."""

    gate: nn.Module

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The BatchNorm before the gate."""
        norm: nn.BatchNorm2d = self.bn2
        return norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.gate(self.bn2(self.conv2(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out + shortcut)
        return result


class Bottleneck(resnet.Bottleneck):  # type: ignore[misc]
    """1x1, 3x3 and 1x1 convolutions, the gate, then the shortcut. (N, C, H, W) -> (N, 4C', ...)."""

    gate: nn.Module

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The BatchNorm before the gate."""
        norm: nn.BatchNorm2d = self.bn3
        return norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.gate(self.bn3(self.conv3(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out + shortcut)
        return result


class GatedResNet(resnet.ResNet):  # type: ignore[misc]
    """torchvision's ResNet with widened stages, a scaled stem and gates.

    Args:
        shape: depths, block type, groups and widening of the stages.
        attention: the gate at the end of every block, before the shortcut is added.
        width: factor on all channels, the stem's too.
        stride: 'v1' strides in a bottleneck's first 1x1 convolution, 'v1.5' in its 3x3.
        stem: 'cifar' starts with a 3x3 convolution of stride 1 and does not pool after it.
        classes: outputs.

    Shape: (N, 3, H, W) -> (N, classes).
    """

    def __init__(
        self,
        shape: ResNetShape,
        attention: Attention,
        *,
        width: float,
        stride: str,
        classes: int,
        stem: str | None = None,
    ) -> None:
        # Set before torchvision's constructor, which calls `_make_layer` below.
        self._stem = int(STEM_CHANNELS * width)
        self._stages = iter(shape.stage_channels(width))
        super().__init__(
            Bottleneck if shape.bottleneck else BasicBlock,
            list(shape.depths),
            num_classes=classes,
            groups=shape.groups,
            width_per_group=shape.width_per_group,
        )
        # The constructor fixes 64 channels for the stem and 512 for the last stage.
        self.conv1 = nn.Conv2d(3, self._stem, 7, stride=2, padding=3, bias=False)
        if stem == "cifar":
            self.conv1 = nn.Conv2d(3, self._stem, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(self._stem)
        blocks = [m for m in self.modules() if isinstance(m, BasicBlock | Bottleneck)]
        for block in blocks:
            channels = block.last_norm.num_features
            block.gate = build_gate(attention, channels)
            if shape.bottleneck and stride == "v1":
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        self.fc = nn.Linear(channels, classes)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The places whose outputs are feature maps, gates and shortcuts included, by name."""
        return {f"layer{i}": getattr(self, f"layer{i}") for i in range(1, 5)}

    def _make_layer(
        self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        if planes == STEM_CHANNELS:  # the first stage
            self.inplanes = self._stem
        layer: nn.Sequential = super()._make_layer(
            block, next(self._stages), blocks, stride, dilate
        )
        return layer
