"""HaloNet, local self-attention in a ResNet (Vaswani et al. 2021, arXiv:2103.12731)."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from attention_ablation.base.errors import UserError
from attention_ablation.networks.network import Network, Places, multiple, pooled

STEM, STAGE_CHANNELS, DEPTH = 64, (256, 512, 1024, 2048), 2


@dataclass(frozen=True, kw_only=True)
class HaloNet(Network):
    """timm's halonet26t: self-attention in the second block of stage 3 and in stage 4.

    Exact to timm, and none of the paper's H0 to H7, of which there is no public code. A gate stands
    on a block's last convolution, before the shortcut. A block of queries has the size of the last
    map, a 32nd of the image (timm's 8 at 256 px); with `stem: cifar`, which takes the stride and
    the pooling off the stem, an eighth.
    """

    family = "halonet"
    keys = frozenset({"stem"})
    stages = tuple(f"features.stages.{i}" for i in range(4))
    own_init = True
    convolutions = 3 * DEPTH * len(STAGE_CHANNELS)

    def channels(self, width: float) -> list[int]:
        """Return the channels after each stage, which timm rounds to multiples of 8."""
        return [multiple(channels * width, 8) for channels in STAGE_CHANNELS]

    def narrowest(self, width: float) -> int:
        return 3 * round(STEM * width) // 8  # of the stem's first convolution

    def places(self, width: float) -> Places:
        return {"block-end": [*chain(*([c] * DEPTH for c in self.channels(width)))]}

    def block_size(self, backbone: Any, image_size: int) -> int:
        """Return the side of a block of queries. Raises UserError where none tiles the maps."""
        reduction = 8 if backbone.stem == "cifar" else 32
        if image_size % reduction:
            raise UserError(
                f"{backbone.name}: expected images of a multiple of {reduction} px, whose last map "
                f"its blocks tile, got {image_size} px; change 'image_size'."
            )
        return image_size // reduction

    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        from timm.models.byoanet import model_cfgs
        from timm.models.byobnet import ByobNet
        from torch import nn

        class Ending(nn.Sequential):
            """A residual branch's last convolution, and the gate after it."""

            @property
            def last_norms(self) -> list[Any]:
                return [self[0].bn]

        given = model_cfgs["halonet26t"]
        block_size = self.block_size(backbone, image_size)
        attention = {**given.self_attn_kwargs, "block_size": block_size}
        config = replace(given, self_attn_kwargs=attention, width_factor=backbone.width)
        model = ByobNet(config, classes, zero_init_last=False)
        if backbone.stem == "cifar":
            model.stem.conv1.conv.stride = (1, 1)
            model.stem.pool = nn.Identity()
        ends = gates.at("block-end")
        for block in chain(*model.stages):
            block.conv3_1x1 = Ending(block.conv3_1x1, next(ends))
        features = OrderedDict(stem=model.stem, stages=model.stages)
        network = pooled(nn.Sequential(features), self.channels(backbone.width)[-1], classes)
        network.classifier = model.head.fc
        return network


NETWORKS = {"halonet26t": HaloNet()}
