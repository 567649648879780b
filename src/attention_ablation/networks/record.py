"""A network as a study names it: one of `BACKBONES`, at full size unless a tier shrinks it."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from attention_ablation.base.model import Model
from attention_ablation.base.registry import modules
from attention_ablation.networks.network import Network

BACKBONES: dict[str, Network] = {
    name: network
    for family in modules("attention_ablation.networks.families")
    for name, network in family.NETWORKS.items()
}


class Named(Model):
    """What has a name, which stands before its size in every listing."""

    name: str


class BackboneSize(Model):
    """A network's size and layout, which a tier chooses."""

    width: float = Field(1.0, gt=0, description="Factor on every layer's channels; 1 is the paper.")
    stride: Literal["v1", "v1.5"] = Field(
        "v1",
        description="Where a bottleneck strides: its first 1x1 convolution (v1, the paper's "
        "counts) or its 3x3 convolution (v1.5, the authors' released code).",
    )
    norm: bool | None = Field(
        None,
        description="VGG only: BatchNorm after every convolution, which the paper's has not.",
    )
    stem: Literal["cifar"] | None = Field(
        None,
        description="'cifar': a first convolution of 3x3 with stride 1 and no pooling after it, "
        "for images of 32 px; null: the paper's.",
    )


class Backbone(BackboneSize, Named):
    """A network of `BACKBONES`, at full size unless a tier shrinks it."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone '{name}'; valid are: {', '.join(BACKBONES)}")
        return name

    @model_validator(mode="after")
    def _the_networks_keys(self) -> Self:
        for key in ("norm", "stem"):
            if getattr(self, key) is not None and key not in self.network.keys:
                raise ValueError(f"'{key}' has no meaning for {self.name}; remove it")
        return self

    @property
    def network(self) -> Network:
        """What its family says of it."""
        return BACKBONES[self.name]
