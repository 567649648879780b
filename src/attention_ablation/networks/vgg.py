"""VGG16 with convolutions in place of its fully connected layers, the trunk of SSD300."""

from collections import OrderedDict

from torch import Tensor, nn

from attention_ablation.networks.shapes import VGG_CONNECTED, VGG_STAGES


def conv_block(
    inputs: int, outputs: int, kernel: int, *, norm: bool, dilation: int = 1
) -> nn.Sequential:
    """Return convolution, BatchNorm where `norm`, ReLU: (N, inputs, H, W) -> (N, outputs, H, W)."""
    conv = nn.Conv2d(
        inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=not norm
    )
    layers = [conv, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class ReducedVGG(nn.Module):
    """conv1_1 to conv5_3, then conv6 (3x3, dilated) and conv7 (1x1) for the two connected layers.

    Pooling rounds up, as in Caffe, which the published weights come from: a 300 px image gives maps
    of 150, 75, 38 and 19 px. The fifth pooling keeps the map's size, and the dilation of
    conv6 makes good for it (Chen et al. 2015). Liu et al. 2016 leave dropout out.

    Args:
        width: factor on all channels.
        norm: BatchNorm after every convolution, in place of its bias. The published network has
            none; without pretrained weights it hardly trains.
        classes: outputs of the linear layer on the mean of the last map.

    Shape: (N, 3, H, W) -> (N, classes).
    """

    def __init__(self, *, width: float, norm: bool, classes: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = 3
        for stage, planes in enumerate(VGG_STAGES, 1):
            for i, outputs in enumerate((int(p * width) for p in planes), 1):
                layers[f"conv{stage}_{i}"] = conv_block(channels, outputs, 3, norm=norm)
                channels = outputs
            layers[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
        layers["pool5"] = nn.MaxPool2d(3, stride=1, padding=1)
        connected = int(VGG_CONNECTED * width)
        layers["conv6"] = conv_block(channels, connected, 3, norm=norm, dilation=6)
        layers["conv7"] = conv_block(connected, connected, 1, norm=norm)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(connected, classes)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The places whose outputs are feature maps, by name: every convolution's ReLU."""
        named = self.features.named_children()
        return {f"features.{name}": part for name, part in named if name.startswith("conv")}

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of `x`."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits
