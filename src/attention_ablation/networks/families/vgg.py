"""The reduced VGG16 that detectors stand on; Table 7 gives it no gate of its own."""

from dataclasses import dataclass
from typing import Any

from attention_ablation.networks.network import Network, Places

# Channels of VGG16's convolutions, stage by stage (Simonyan and Zisserman 2015, Table 1, D), and
# of the two that stand for its fully connected layers (Chen et al. 2015; Liu et al. 2016).
CONVOLUTIONS = {
    **{"conv1_1": 64, "conv1_2": 64, "conv2_1": 128, "conv2_2": 128},
    **{"conv3_1": 256, "conv3_2": 256, "conv3_3": 256},
    **{"conv4_1": 512, "conv4_2": 512, "conv4_3": 512},
    **{"conv5_1": 512, "conv5_2": 512, "conv5_3": 512},
    **{"conv6": 1024, "conv7": 1024},
}


@dataclass(frozen=True, kw_only=True)
class VGG(Network):
    """13 convolutions of VGG16, conv6 and conv7."""

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

    def build(self, backbone: Any, gates: Any, classes: int) -> Any:
        from attention_ablation.networks.vgg import ReducedVGG

        return ReducedVGG(self, backbone, classes)


NETWORKS = {"vgg16": VGG()}
