"""A network as a study names it: one of `BACKBONES`, at full size unless a tier shrinks it."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from attention_ablation.base.model import Model
from attention_ablation.base.registry import modules
from attention_ablation.networks.network import Network, Places

BACKBONES: dict[str, Network] = {
    name: network
    for family in modules("attention_ablation.networks.families")
    for name, network in family.NETWORKS.items()
}
FrontEnd = Literal["lpae"]
# What a front-end's classifier is made of: networks/lpae.py.
FRONT_END_HOSTS = ("resnet18", "resnet34", "resnet50", "resnet101")


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
    """A network of `BACKBONES`, at full size unless a tier shrinks it.

    With a front-end it gets what that makes of an image; see networks/lpae.py.
    """

    front_end: FrontEnd | None = None

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
        if self.front_end and self.name not in FRONT_END_HOSTS:
            raise ValueError(
                f"expected a front-end for one of {', '.join(FRONT_END_HOSTS)}, got "
                f"'{self.front_end}' for {self.name}; leave it out"
            )
        return self

    @property
    def network(self) -> Network:
        """What its family says of it."""
        return BACKBONES[self.name]

    @property
    def detail_width(self) -> float:
        """The width of a front-end's second network, on the detail of an image."""
        return self.width / 4

    @property
    def places(self) -> Places:
        """The channels of every gate at each place; there is none behind a front-end."""
        return {} if self.front_end else self.network.places(self.width)

    @property
    def narrowest(self) -> int:
        """The channels where there are fewest."""
        return self.network.narrowest(self.detail_width if self.front_end else self.width)
