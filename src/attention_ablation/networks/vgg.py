"""VGG16 with convolutions in place of its fully connected layers, the trunk of SSD300, in torch."""

from collections import OrderedDict

from torch import Tensor, nn

from attention_ablation.networks.families.vgg import VGG
from attention_ablation.networks.record import Backbone

# The pooling that follows a convolution. It rounds up, as in Caffe, which the published weights
# come from: a 300 px image gives maps of 150, 75, 38 and 19 px. The fifth keeps the map's size, and
# the dilation of conv6 makes good for it (Chen et al. 2015).
POOLED = {"conv1_2": "pool1", "conv2_2": "pool2", "conv3_3": "pool3", "conv4_3": "pool4"}


class ReducedVGG(nn.Module):
    """conv1_1 to conv5_3, then conv6 (3x3, dilated) and conv7 (1x1) for the two connected layers.

    Liu et al. 2016 leave dropout out. The classifier is a linear layer on the mean of the last map.
    With the backbone's `norm` a BatchNorm follows every convolution, in place of its bias: without
    it and without pretrained weights the network hardly trains.

    Shape: (N, 3, H, W) -> (N, classes).
    """

    def __init__(self, network: VGG, backbone: Backbone, classes: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for name, outputs in network.channels(backbone.width).items():
            kernel, dilation = 1 if name == "conv7" else 3, 6 if name == "conv6" else 1
            layers[name] = _convolution(inputs, outputs, kernel, dilation, norm=backbone.norm)
            if name in POOLED:
                layers[POOLED[name]] = nn.MaxPool2d(2, ceil_mode=True)
            elif name == "conv5_3":
                layers["pool5"] = nn.MaxPool2d(3, stride=1, padding=1)
            inputs = outputs
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def _convolution(
    inputs: int, outputs: int, kernel: int, dilation: int, *, norm: bool | None
) -> nn.Sequential:
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=not norm)
    return nn.Sequential(conv, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU(inplace=True))
