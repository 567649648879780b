"""The detectors as plain data, so that planning can reason about them without torch.

`models.detection` turns an entry and a backbone into a network.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DetectorShape:
    """Which backbones a detector is built on, where its gates are, and the paper's data set.

    Attributes:
        backbones: beginnings of their names.
        gates_in_backbone: or right before every classifier, where the backbone has none.
        classes: of the paper's data set, without the background.
        image_size: the paper's, px.
    """

    backbones: tuple[str, ...]
    gates_in_backbone: bool
    classes: int
    image_size: int


_ON_VOC = DetectorShape(
    backbones=("vgg16", "mobilenet"), gates_in_backbone=False, classes=20, image_size=300
)
DETECTORS = {
    "faster-rcnn": DetectorShape(
        backbones=("resnet",), gates_in_backbone=True, classes=80, image_size=600
    ),
    "ssd": _ON_VOC,
    "stairnet": _ON_VOC,
}
