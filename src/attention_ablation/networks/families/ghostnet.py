"""GhostNet and ResNet50 with Ghost modules (Han et al. 2020, arXiv:1911.11907)."""

from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from attention_ablation.networks.families.resnet import ResNet
from attention_ablation.networks.network import Network, Places, multiple

STEM = 16
BLOCKS = (16, 24, 24, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160, 160, 160)  # Table 1


@dataclass(frozen=True, kw_only=True)
class GhostNet(Network):
    """timm's GhostNet 1.0x, exact; a gate stands on a block's last module, before the shortcut.

    Some of its blocks have an SE of their own inside, which stays. `stem: cifar` takes the stride
    off its 3x3 stem. timm rounds channels to multiples of 4, and leaves 1280 in the head at any
    width.
    """

    family = "ghostnet"
    keys = frozenset({"stem"})
    stages = tuple(f"blocks.{i}" for i in range(10))
    own_init = True
    grouped = True
    convolutions = 4 * len(BLOCKS)

    def channels(self, width: float) -> list[int]:
        """Return the channels after each block."""
        return [multiple(channels * width, 4) for channels in BLOCKS]

    def narrowest(self, width: float) -> int:
        return multiple(STEM * width, 4) // 2  # a module's own maps

    def places(self, width: float) -> Places:
        return {"block-end": self.channels(width)}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from timm.models import ghostnet
        from torch import nn

        blocks = ghostnet.ghostnet_100(device="meta").cfgs
        model = ghostnet.GhostNet(blocks, classes, backbone.width)
        ends = gates.at("block-end")
        for block in model.modules():
            if isinstance(block, ghostnet.GhostBottleneck):
                block.ghost2 = nn.Sequential(block.ghost2, next(ends))
        if backbone.stem == "cifar":
            model.conv_stem.stride = (1, 1)
        return model


@dataclass(frozen=True, kw_only=True)
class GhostResNet(ResNet):
    """A ResNet whose bottlenecks have Ghost modules; the modules are timm's.

    A reading of the paper's Ghost-ResNet-50: its sizes (13.0 M parameters at ratio 2, 6.5 M at 4)
    do not follow from its text, which gives ours 13.95 M and 8.15 M.
    """

    ratio: int

    grouped = True

    @property
    def convolutions(self) -> int:
        return 2 * super().convolutions

    def narrowest(self, width: float) -> int:
        planes = super().narrowest(width)
        return ceil(planes / self.ratio)

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from attention_ablation.networks.ghost import GhostBottleneck
        from attention_ablation.networks.resnet import GatedResNet

        make = partial(GhostBottleneck, ratio=self.ratio)
        return GatedResNet(self, backbone, gates, classes, make)


NETWORKS = {
    "ghostnet": GhostNet(),
    "ghost-resnet50": GhostResNet(depths=(3, 4, 6, 3), bottleneck=True, ratio=2),
    "ghost-resnet50-s4": GhostResNet(depths=(3, 4, 6, 3), bottleneck=True, ratio=4),
}
