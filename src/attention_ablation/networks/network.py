"""What a family says of each of its networks; planning and building read the same."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from attention_ablation.gates.source import Channels, Place

# The channels of every gate at each place; inside a block and over a stage a list, one a map.
Places = Mapping[Place, Sequence[Channels]]


class Network(ABC):
    """A network that a study may name.

    A file of `networks/families` holds such records by their names, in a mapping NETWORKS. Its
    last layer is called 'fc' or 'classifier', so that a detector and the initialisation find it.
    """

    # What a detector's layout goes by.
    family: ClassVar[str]
    # Of a backbone's keys 'norm' and 'stem' those that it takes.
    keys: ClassVar[frozenset[str]] = frozenset()
    # The modules whose outputs are feature maps, gates and shortcuts included, for Grad-CAM.
    stages: ClassVar[tuple[str, ...]] = ()
    # Whether it starts as its own constructor makes it, and not as the authors' ResNet does.
    own_init: ClassVar[bool] = False
    # Whether its convolutions are in groups, which costs more.
    grouped: bool = False

    @property
    @abstractmethod
    def convolutions(self) -> int:
        """Convolutions in its blocks."""

    @abstractmethod
    def narrowest(self, width: float) -> int:
        """Return the channels where there are fewest, with all channels times `width`."""

    @abstractmethod
    def places(self, width: float) -> Places:
        """Return the channels of every gate at each place that it has."""

    @abstractmethod
    def build(self, backbone: Any, gates: Any, classes: int, image_size: int) -> Any:
        """Return the module, (N, 3, H, W) -> (N, classes), with `gates.at(place)` at its places.

        `gates` are `gates.build.Gates`, `backbone` is the `Backbone` that names the network.
        image_size: px of a square image, for networks whose layers depend on it.
        """

    def gated_channels(self, width: float, place: Place = "block-end") -> Sequence[Channels]:
        """Return the channels of every gate at a place; none where it has no such place."""
        return self.places(width).get(place, [])

    def normalises(self, backbone: Any) -> bool:
        """Whether it has a BatchNorm."""
        return True

    def taps(self, width: float) -> dict[str, int]:
        """Return the children of `features` that a single-shot detector sees, with channels."""
        return {}


def multiple(channels: float, of: int) -> int:
    """Return the nearest multiple, at least one and no tenth below, as timm and MobileNets do."""
    rounded = max(of, int(channels + of / 2) // of * of)
    return rounded + of if rounded < 0.9 * channels else rounded


def convolution(
    inputs: int, outputs: int, kernel: int = 3, *, norm: bool = True, **options: Any
) -> Any:
    """Return a convolution that keeps the map's size but for a stride, a BatchNorm, and a ReLU."""
    from torch import nn

    padding = (kernel - 1) // 2 * options.get("dilation", 1)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=not norm, **options)
    norms = [nn.BatchNorm2d(outputs)] if norm else []
    return nn.Sequential(conv, *norms, nn.ReLU(inplace=True))


def pooled(features: Any, channels: int, classes: int) -> Any:
    """Return a network whose classifier is a linear layer on the mean of the last map."""
    from torch import nn

    ends = {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    classifier = nn.Linear(channels, classes)
    return nn.Sequential(OrderedDict(features=features, **ends, classifier=classifier))
