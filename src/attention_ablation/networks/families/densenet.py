"""DenseNet (Huang et al. 2017, arXiv:1608.06993)."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from attention_ablation.networks.network import Network, Places


@dataclass(frozen=True, kw_only=True)
class DenseNet(Network):
    """timm's DenseNet-BC, exact: layers of each dense block, and the channels that each adds.

    A gate stands on the output of each dense block, which has no shortcut to stand before. After a
    layer it would weigh only the `growth` maps that the layer adds. timm's, unlike torchvision's,
    has the last ReLU in a module, so that Grad-CAM sees the map that is pooled.
    """

    family = "densenet"
    keys = frozenset({"stem"})
    stages = (*(f"features.gate{i}" for i in (1, 2, 3, 4)), "features.norm5")
    own_init = True

    layers: tuple[int, ...]
    growth: int = 32

    @property
    def convolutions(self) -> int:
        return 2 * sum(self.layers) + len(self.layers) - 1

    def narrowest(self, width: float) -> int:
        return int(self.growth * width)

    def places(self, width: float) -> Places:
        growth = int(self.growth * width)
        outputs, channels = [], 2 * growth  # of the stem
        for layers in self.layers:
            outputs.append(channels + layers * growth)
            channels = outputs[-1] // 2  # a transition halves them
        return {"block-end": outputs}

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from timm.models import densenet
        from torch import nn

        growth = int(self.growth * backbone.width)
        model = densenet.DenseNet(growth, self.layers, classes)
        parts: OrderedDict[str, nn.Module] = OrderedDict(model.features.named_children())
        if backbone.stem == "cifar":
            conv = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight)  # as timm's
            parts["conv0"], parts["pool0"] = conv, nn.Identity()
        ends, features = gates.at("block-end"), nn.Sequential()
        for name, part in parts.items():
            features.add_module(name, part)
            if name.startswith("denseblock"):
                features.add_module(f"gate{name[-1]}", next(ends))
        model.features = features
        return model


NETWORKS = {"densenet121": DenseNet(layers=(6, 12, 24, 16))}
