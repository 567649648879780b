"""Where a network looks: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391), by captum.

The map of an image is ReLU(sum over channels c of a_c * A_c), enlarged bilinearly to the image;
a_c is the mean over places of the gradient of the true class's logit with respect to channel A_c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

# Images at a time: the whole network's activations are kept for the gradient.
BATCH = 50
# A map of fewer places a side hardly tells left from right; one of a single place points nowhere.
LEAST_MAP = 4


@dataclass(frozen=True)
class Layer:
    """Whose output is explained: its name, and the height and width of its map."""

    name: str
    module: nn.Module
    size: tuple[int, int]


@dataclass(frozen=True)
class Explained:
    """maps: (N, H, W) float32, not negative. probability: (N,) of the true class."""

    maps: NDArray[np.float32]
    probability: NDArray[np.float32]


@torch.inference_mode()
def layers(model: nn.Module, stages: Mapping[str, nn.Module], image: Tensor) -> list[Layer]:
    """Return a model's stages with the sizes of their maps, in the order in which they run.

    The stages' outputs are (N, C, h, w), of an image (1, 3, H, W).
    """
    found: list[Layer] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        name = next(name for name, stage in stages.items() if stage is module)
        found.append(Layer(name, module, (output.shape[2], output.shape[3])))

    hooks = [stage.register_forward_hook(note) for stage in stages.values()]
    model(image)
    for hook in hooks:
        hook.remove()
    return found


def choose(candidates: Sequence[Layer]) -> Layer:
    """Return the last layer whose map has at least `LEAST_MAP` places a side.

    At 224 px that is the last convolution's output, 7x7, as in the paper, with its gate and, in a
    residual network, its shortcut; at 32 px that one has a single place. Rows that are compared are
    explained at the same place: the backbone and the image's size alone decide.
    """
    large = [layer for layer in candidates if min(layer.size) >= LEAST_MAP]
    return large[-1] if large else candidates[0]


def gradcam(model: nn.Module, layer: nn.Module, images: Tensor, labels: Tensor) -> Explained:
    """Return the Grad-CAM of every image's label, and the label's softmax score.

    Args:
        model: in evaluation mode.
        layer: a part of it whose output is (N, C, h, w).
        images: (N, 3, H, W), as the network sees them.
    """
    explainer = LayerGradCam(model, layer)
    maps, probabilities = [], []
    for batch, of in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        with torch.inference_mode():
            scores = model(batch).float().softmax(dim=1)
        probabilities.append(scores.gather(1, of[:, None]).squeeze(1).cpu())
        # captum differentiates with respect to the layer; the input only keeps the graph alive.
        inputs = batch.detach().clone().requires_grad_()
        small = explainer.attribute(inputs, target=of, relu_attributions=True).detach()
        large = LayerAttribution.interpolate(small, tuple(batch.shape[2:]), "bilinear")
        maps.append(large.squeeze(1).cpu())
    return Explained(torch.cat(maps).numpy(), torch.cat(probabilities).numpy())
