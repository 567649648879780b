"""MobileNet v1 in torch, with a gate after every convolution."""

from collections.abc import Iterator

from torch import Tensor, nn

from attention_ablation.gates.build import Gates
from attention_ablation.networks.families.mobilenet import MobileNet
from attention_ablation.networks.record import Backbone


class GatedMobileNet(nn.Module):
    """MobileNet with a gate behind the BatchNorm and the ReLU of every convolution.

    The stem 'cifar' gives the first convolution a stride of 1.

    Shape: (N, 3, H, W) -> (N, classes).
    """

    def __init__(self, network: MobileNet, backbone: Backbone, gates: Gates, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*_layers(network, backbone, gates))
        self.classifier = nn.Linear(network.channels(backbone.width)[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def _layers(network: MobileNet, backbone: Backbone, gates: Gates) -> Iterator[nn.Module]:
    ends = gates.at("block-end")

    def convolution(
        inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> nn.Sequential:
        padding = kernel // 2
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), next(ends))

    stem, *blocks = network.channels(backbone.width)
    yield convolution(3, stem, 3, stride=1 if backbone.stem == "cifar" else 2)
    inputs = stem
    for outputs, stride in zip(blocks, network.strides, strict=True):
        yield convolution(inputs, inputs, 3, stride, groups=inputs)
        yield convolution(inputs, outputs, 1)
        inputs = outputs
