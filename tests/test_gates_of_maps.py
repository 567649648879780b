"""BA-Net, SDA-xNet, CAT, SCA-CNN and DA2-Net: exact counts, equations, options, and their start."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from attention_ablation.evidence.complexity import measure
from attention_ablation.gates.build import load_class
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import Backbone

Array = NDArray[Any]
NETWORKS = {
    "resnet50": Backbone(name="resnet50"),
    "v1.5": Backbone(name="resnet50", stride="v1.5"),
    "resnet34": Backbone(name="resnet34"),
    "resnet18": Backbone(name="resnet18"),
}
# Parameters and multiply-accumulates in 1e9 of the networks above, for images of 224x224.
COUNTS = {
    "ba": [
        (28_706_376, "3.861117"),
        (28_706_376, "4.092328"),
        (22_034_392, "3.663997"),
        (11_820_552, "1.814204"),
    ],
    "sda": [
        (27_309_480, "3.859710"),
        (27_309_480, "4.090921"),
        (22_105_064, "3.664065"),
        (11_876_264, "1.814258"),
    ],
    "cat": [
        (28_072_888, "4.004182"),
        (28_072_888, "4.235393"),
        (21_955_768, "3.699408"),
        (11_777_008, "1.833559"),
    ],
    "sca": [
        (26_819_240, "4.063839"),
        (26_819_240, "4.295050"),
        (21_877_460, "3.676693"),
        (11_733_640, "1.820543"),
    ],
    "da2": [
        (30_970_344, "3.962401"),
        (30_970_344, "4.193612"),
        (22_365_096, "3.689082"),
        (11_978_024, "1.827867"),
    ],
}
LISTS = {"ba": [4, 4, 16], "sda": [16, 16, 16, 16]}  # what is not made with 16 channels


def make(name: str, channels: Any = None, **options: Any) -> Any:
    """Return a fresh gate, which has reduction 4 where nothing else is said."""
    torch.manual_seed(3)
    made: Any = load_class(Attention(gate=name))
    return made(channels or LISTS.get(name, 16), **{"reduction": 4} | options)


def maps_for(name: str, height: int = 5, width: int = 6) -> Any:
    """Return two images of random maps; the first map inside a block is larger, as by a stride."""
    torch.manual_seed(4)
    if name == "ba":
        sizes = [(2 * height, 2 * width), (height, width), (height, width)]
        return [torch.randn(2, c, *size) for c, size in zip(LISTS[name], sizes, strict=True)]
    if name == "sda":
        return [torch.randn(2, 16, height, width) for _ in LISTS[name]]
    return torch.randn(2, 16, height, width)


def randomised(gate: Any) -> Any:
    """Return it in evaluation, with no number where it started."""
    with torch.no_grad():
        for tensor in gate.parameters():
            tensor.normal_(std=0.5)
        for name, tensor in gate.named_buffers():
            if name.endswith("running_mean"):
                tensor.normal_()
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
    return gate.eval()


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_multiply_accumulates_are_exact(name: str) -> None:
    counts = [measure(backbone, Attention(gate=name)) for backbone in NETWORKS.values()]
    found = [(c.params, str(Decimal(c.gflops).quantize(Decimal("1e-6")))) for c in counts]
    assert found == COUNTS[name]


# The equations, in numpy.


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def linear(layer: Any, v: Array) -> Array:
    out: Array = v @ array(layer.weight).reshape(layer.weight.shape[:2]).T
    return out if layer.bias is None else out + array(layer.bias)


def normalise(norm: Any, v: Array) -> Array:
    """In evaluation: over the second axis."""
    shape = (1, -1) + (1,) * (v.ndim - 2)
    mean, var, weight, bias = (
        array(t).reshape(shape)
        for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    out: Array = (v - mean) / np.sqrt(var + norm.eps) * weight + bias
    return out


def sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def softmax(v: Array, axis: int) -> Array:
    out: Array = np.exp(v) / np.exp(v).sum(axis, keepdims=True)
    return out


def depthwise(x: Array, kernels: Array, dilation: int = 1) -> Array:
    """Convolve each channel with its kernel (C, k, k), zeros beyond the edges."""
    (_, _, height, width), size = x.shape, kernels.shape[-1]
    edge = dilation * (size // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    out = np.zeros_like(x)
    for i in range(size):
        for j in range(size):
            top, left = i * dilation, j * dilation
            shifted = padded[:, :, top : top + height, left : left + width]
            out += kernels[:, i, j][:, None, None] * shifted
    return out


def ba(gate: Any, maps: Sequence[Array]) -> Array:
    z: Any = 0
    for (reduce, norm), f in zip(gate.bridges, maps, strict=True):
        z = z + normalise(norm, linear(reduce, f.mean((2, 3))))
    return sigmoid(linear(gate.expand, np.maximum(z, 0)))[:, :, None, None] * maps[-1]


def selected(gate: Any, maps: Sequence[Array]) -> Array:
    """Of SDA and DA2: the sum of the maps, weighted by a softmax over them for each channel."""
    reduce, norm, _ = gate.squeeze
    pooled = np.sum(maps, axis=0).mean((2, 3))
    scores = linear(gate.select, np.maximum(normalise(norm, linear(reduce, pooled)), 0))
    channels, out = maps[0].shape[1], np.zeros_like(maps[0])
    for image in range(len(out)):
        for c in range(channels):
            logits = np.array([scores[image, i * channels + c] for i in range(len(maps))])
            for weight, x in zip(softmax(logits, 0), maps, strict=True):
                out[image, c] += weight * x[image, c]
    return out


def da2(gate: Any, x: Array) -> Array:
    branches = [x]
    for dilation, (conv, norm) in zip((1, 2), gate.branches, strict=True):
        branches.append(normalise(norm, depthwise(x, array(conv.weight)[:, 0], dilation)))
    return selected(gate, branches)


def sca(gate: Any, x: Array) -> Array:
    u, c, w = (array(t) for t in (gate.u, gate.c, gate.w))
    first, _, last = gate.spatial
    out = np.empty_like(x)
    for i, image in enumerate(x):
        scores = np.array([w @ np.tanh(u * channel.mean() + c) for channel in image])
        y = len(image) * softmax(scores, 0)[:, None, None] * image
        places = y.reshape(len(y), -1).T  # (HW, C)
        scores = linear(last, np.tanh(linear(first, places)))[:, 0]
        out[i] = len(places) * softmax(scores, 0).reshape(y.shape[1:]) * y
    return out


def scaled_entropy(x: Array, axis: int) -> Array:
    """x: one image, (C, HW)."""
    p = softmax(x, axis)
    raw = -(p * np.log(p)).sum(axis)
    scaled: Array = (raw - raw.min()) / (raw.max() - raw.min())
    return scaled


def cat(gate: Any, x: Array) -> Array:
    down, _, up = gate.mlp
    line = [np.exp(-(d**2) / 2) for d in (-2, -1, 0, 1, 2)]
    blur = np.outer(line, line) / np.outer(line, line).sum()
    blurred = depthwise(x, np.stack([blur] * x.shape[1]))
    share = softmax(array(gate.shares), 0)
    out = np.empty_like(x)
    for i, (image, soft) in enumerate(zip(x, blurred, strict=True)):
        flat = image.reshape(len(image), -1)
        traits = [image.mean((1, 2)), soft.max((1, 2)), scaled_entropy(flat, 1)]
        parts = zip(array(gate.a), traits, strict=True)
        raw = sum(a * linear(up, np.maximum(linear(down, trait), 0)) for a, trait in parts)
        traits = [image.mean(0), soft.max(0), scaled_entropy(flat, 0).reshape(image.shape[1:])]
        seen = sum(b * trait for b, trait in zip(array(gate.b), traits, strict=True))
        place = depthwise(seen[None, None], array(gate.conv.weight)[0])[0]
        weights = share[0] * sigmoid(raw)[:, None, None] + share[1] * sigmoid(place)
        out[i] = weights * image
    return out


EQUATIONS: dict[str, Callable[[Any, Any], Array]] = {
    "ba": ba,
    "sda": selected,
    "cat": cat,
    "sca": sca,
    "da2": da2,
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_each_gate_computes_its_equation(name: str) -> None:
    gate, maps = randomised(make(name)), maps_for(name)
    found = gate(maps)
    given = [array(x) for x in maps] if isinstance(maps, list) else array(maps)
    np.testing.assert_allclose(array(found), EQUATIONS[name](gate, given), rtol=1e-4, atol=1e-5)
