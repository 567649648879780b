"""MobileNet v1 (Howard et al. 2017) with a gate after every convolution."""

from collections.abc import Iterator

from torch import Tensor, nn

from attention_ablation.gates.gate import build_gate
from attention_ablation.gates.record import Attention
from attention_ablation.networks.shapes import MOBILENET_BLOCKS, MOBILENET_STEM, MobileNetShape


def gated_conv(
    inputs: int,
    outputs: int,
    kernel: int,
    attention: Attention,
    *,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """Return convolution, BatchNorm, ReLU and gate: (N, inputs, H, W) -> (N, outputs, H/s, W/s)."""
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(
        conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), build_gate(attention, outputs)
    )


class GatedMobileNet(nn.Module):
    """A stem and 13 depthwise separable blocks, 27 convolutions and as many gates.

    The gates' number follows from the parameters in Table 5.

    Args:
        shape: the width multiplier alpha.
        attention: the gate after every convolution, behind its BatchNorm and ReLU.
        width: a further factor on all channels.
        stem: 'cifar' gives the first convolution a stride of 1.
        classes: outputs.

    Shape: (N, 3, H, W) -> (N, classes).
    """

    def __init__(
        self,
        shape: MobileNetShape,
        attention: Attention,
        *,
        width: float,
        classes: int,
        stem: str | None = None,
    ) -> None:
        super().__init__()
        scale = shape.alpha * width

        def layers() -> Iterator[nn.Module]:
            channels = int(MOBILENET_STEM * scale)
            yield gated_conv(3, channels, 3, attention, stride=1 if stem == "cifar" else 2)
            for planes, stride in MOBILENET_BLOCKS:
                outputs = int(planes * scale)
                yield gated_conv(channels, channels, 3, attention, stride=stride, groups=channels)
                yield gated_conv(channels, outputs, 1, attention)
                channels = outputs

        self.features = nn.Sequential(*layers())
        self.classifier = nn.Linear(int(MOBILENET_BLOCKS[-1][0] * scale), classes)

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The places whose outputs are feature maps, by name: a pointwise convolution's gate."""
        return {f"features.{i}": self.features[i] for i in range(2, len(self.features), 2)}

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of `x`."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits
