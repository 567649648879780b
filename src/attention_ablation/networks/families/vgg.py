"""The reduced VGG16 that detectors stand on; Table 7 gives it no gate of its own."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from attention_ablation.networks.network import Network, Places, convolution, pooled

# Channels of VGG16's convolutions, stage by stage (Simonyan and Zisserman 2015, Table 1, D), and
# of the two that stand for its fully connected layers (Chen et al. 2015; Liu et al. 2016).
CONVOLUTIONS = {
    **{"conv1_1": 64, "conv1_2": 64, "conv2_1": 128, "conv2_2": 128},
    **{"conv3_1": 256, "conv3_2": 256, "conv3_3": 256},
    **{"conv4_1": 512, "conv4_2": 512, "conv4_3": 512},
    **{"conv5_1": 512, "conv5_2": 512, "conv5_3": 512},
    **{"conv6": 1024, "conv7": 1024},
}
# The pooling that follows a convolution. It rounds up, as in Caffe, which the published weights
# come from: a 300 px image gives maps of 150, 75, 38 and 19 px. The fifth keeps the map's size, and
# the dilation of conv6 makes good for it (Chen et al. 2015).
POOLED = {"conv1_2": "pool1", "conv2_2": "pool2", "conv3_3": "pool3", "conv4_3": "pool4"}


@dataclass(frozen=True, kw_only=True)
class VGG(Network):
    """13 convolutions of VGG16, conv6 (3x3, dilated) and conv7 (1x1), without dropout.

    Without the backbone's `norm` and without pretrained weights it hardly trains.
    """

    family = "vgg"
    keys = frozenset({"norm"})
    stages = tuple(f"features.{name}" for name in CONVOLUTIONS)
    convolutions = len(CONVOLUTIONS)

    def channels(self, width: float) -> dict[str, int]:
        """Return the channels of every convolution by its name."""
        return {name: int(channels * width) for name, channels in CONVOLUTIONS.items()}

    def narrowest(self, width: float) -> int:
        return min(self.channels(width).values())

    def places(self, width: float) -> Places:
        return {}

    def normalises(self, backbone: Any) -> bool:
        return bool(backbone.norm)

    def taps(self, width: float) -> dict[str, int]:
        """Return the maps that SSD takes (Liu et al. 2016, 3.1)."""
        return {name: self.channels(width)[name] for name in ("conv4_3", "conv7")}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from torch import nn

        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for name, outputs in self.channels(backbone.width).items():
            kernel, dilation = 1 if name == "conv7" else 3, 6 if name == "conv6" else 1
            layers[name] = convolution(
                inputs, outputs, kernel, norm=self.normalises(backbone), dilation=dilation
            )
            if name in POOLED:
                layers[POOLED[name]] = nn.MaxPool2d(2, ceil_mode=True)
            elif name == "conv5_3":
                layers["pool5"] = nn.MaxPool2d(3, stride=1, padding=1)
            inputs = outputs
        return pooled(nn.Sequential(layers), inputs, classes)


NETWORKS = {"vgg16": VGG()}
