"""BAM, ECA, GC, CRA, FcaNet and WaveNet-C against their equations in plain numpy."""

from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor, nn

from attention_ablation.check.without_gpu import RefuseNondeterministic
from attention_ablation.gates.cra import avg_pool, max_pool
from attention_ablation.gates.fca import FREQUENCIES
from tests.made_gates import fresh, trained

Array = np.ndarray[Any, np.dtype[Any]]
SIZES = ((14, 14), (9, 12), (5, 8), (3, 3), (1, 2), (1, 1))


def agree(gate: nn.Module, x: Tensor, expected: Array) -> None:
    with torch.no_grad():
        found = gate(x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def weights(gate: nn.Module) -> dict[str, Array]:
    return {name: value.double().numpy() for name, value in gate.state_dict().items()}


def maps(size: tuple[int, int], channels: int = 64) -> tuple[Tensor, Array]:
    """Return maps, and the same in double precision of numpy."""
    x = torch.randn(2, channels, *size)
    return x, x.double().numpy()


def sigmoid(raw: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-raw))
    return result


def excited(x: Array, squeezed: Array, w: dict[str, Array]) -> Array:
    """Return SE's product without biases: x times s(W2 relu(W1 z))."""
    raw = np.maximum(squeezed @ w["mlp.0.weight"].T, 0) @ w["mlp.2.weight"].T
    return x * sigmoid(raw)[:, :, None, None]


def convolve(x: Array, weight: Array, bias: Array, dilation: int = 1) -> Array:
    """Convolve with zeros around, one place of the kernel after the other."""
    (k, _), (height, width) = weight.shape[2:], x.shape[2:]
    around = dilation * (k // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (around, around), (around, around)))
    out = np.zeros((len(x), len(weight), height, width)) + bias[:, None, None]
    for i, j in np.ndindex(k, k):
        y, z = i * dilation, j * dilation
        part = padded[:, :, y : y + height, z : z + width]
        out += np.einsum("nchw,oc->nohw", part, weight[:, :, i, j])
    return out


def normalise(x: Array, w: dict[str, Array], name: str) -> Array:
    """Apply a BatchNorm in evaluation, then ReLU."""
    shape = (-1, *[1] * (x.ndim - 2))
    mean, var, scale, shift = (
        w[f"{name}.{part}"].reshape(shape)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + shift, 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("combine", ["sum", "product"])
def test_bam_is_its_equation(combine: str, size: tuple[int, int]) -> None:
    gate = trained("bam", combine=combine)
    (x, a), w = maps(size), weights(gate)
    hidden = a.mean((2, 3)) @ w["channel.0.weight"].T + w["channel.0.bias"]
    hidden = normalise(hidden, w, "channel.1")
    channel = hidden @ w["channel.3.weight"].T + w["channel.3.bias"]
    spatial = a
    for conv, dilation in ((0, 1), (3, 4), (6, 4), (9, 1)):
        parts = w[f"spatial.{conv}.weight"], w[f"spatial.{conv}.bias"]
        spatial = convolve(spatial, *parts, dilation)
        if conv < 9:
            spatial = normalise(spatial, w, f"spatial.{conv + 1}")
    channel = channel[:, :, None, None]
    raw = channel + spatial if combine == "sum" else channel * spatial
    agree(gate, x, a * (1 + sigmoid(raw)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("channels", "kernel"), [(1, 3), (64, 3), (128, 5)])
def test_eca_is_its_equation(channels: int, kernel: int, size: tuple[int, int]) -> None:
    gate = trained("eca", channels)
    (x, a), (w,) = maps(size, channels), weights(gate)["conv.weight"][0]
    assert len(w) == kernel
    pooled = np.pad(a.mean((2, 3)), ((0, 0), (kernel // 2, kernel // 2)))
    raw = sum(w[k] * pooled[:, k : k + channels] for k in range(kernel))
    agree(gate, x, a * sigmoid(raw)[:, :, None, None])


@pytest.mark.parametrize("size", SIZES)
def test_gc_is_its_equation(size: tuple[int, int]) -> None:
    gate = trained("gc")
    (x, a), w = maps(size), weights(gate)
    flat = a.reshape(2, 64, -1)
    logits = np.einsum("ncp,c->np", flat, w["key.weight"][0, :, 0, 0]) + w["key.bias"]
    attention = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    context = (flat * attention[:, None]).sum(2)
    hidden = context @ w["down.weight"].T + w["down.bias"]
    spread = np.sqrt(hidden.var(1, keepdims=True) + 1e-5)
    hidden = (hidden - hidden.mean(1, keepdims=True)) / spread
    hidden = np.maximum(hidden * w["norm.weight"] + w["norm.bias"], 0)
    added = hidden @ w["up.weight"].T + w["up.bias"]
    agree(gate, x, a + added[:, :, None, None])


@pytest.mark.parametrize("size", [*SIZES, (28, 14), (32, 10)])
@pytest.mark.parametrize("pool", ["max", "avg"])
def test_cra_is_its_equation(pool: str, size: tuple[int, int]) -> None:
    gate = trained("cra", pool=pool)
    (x, a), w = maps(size), weights(gate)
    raw = w["conv.bias"] * np.ones((2, 1))
    for i, j in np.ndindex(7, 7):
        rows, columns = (
            slice(k * side // 7, -(-(k + 1) * side // 7))
            for k, side in zip((i, j), size, strict=True)
        )
        cell = getattr(a[:, :, rows, columns], {"max": "max", "avg": "mean"}[pool])((2, 3))
        raw = raw + cell * w["conv.weight"][:, 0, i, j]
    agree(gate, x, a * sigmoid(raw)[:, :, None, None])


@pytest.mark.parametrize("size", [*SIZES, (28, 14), (32, 10)])
def test_cras_pools_are_torchs_adaptive_ones_and_their_gradients_run_on_a_gpu(
    size: tuple[int, int],
) -> None:
    adaptive = nn.functional.adaptive_max_pool2d, nn.functional.adaptive_avg_pool2d
    for pool, reference in zip((max_pool, avg_pool), adaptive, strict=True):
        x = torch.randn(2, 16, *size, requires_grad=True)
        upstream = torch.randn(2, 16, 7, 7)
        (expected,) = torch.autograd.grad(reference(x, 7), x, upstream)
        with RefuseNondeterministic():
            (found,) = torch.autograd.grad(pool(x), x, upstream)
        torch.testing.assert_close(pool(x), reference(x, 7))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [(7, 7), (28, 28), (14, 9), (56, 20)])
def test_fcas_pool_is_a_discrete_cosine_transform(size: tuple[int, int]) -> None:
    gate = trained("fca")
    x, a = maps(size)
    transformed = scipy.fft.dctn(a, axes=(2, 3), norm="ortho")
    squeezed = np.concatenate(
        [
            transformed[:, 4 * group : 4 * group + 4, u * (size[0] // 7), v * (size[1] // 7)]
            for group, (u, v) in enumerate(FREQUENCIES)
        ],
        axis=1,
    )
    agree(gate, x, excited(a, squeezed, weights(gate)))


def test_fca_has_the_authors_16_frequencies() -> None:
    down, across = zip(*FREQUENCIES, strict=True)
    assert down == (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
    assert across == (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)


def test_on_maps_below_7x7_fca_repeats_the_frequencies_that_there_are() -> None:
    gate: Any = trained("fca")
    functions = gate.functions(2, 2).numpy()
    there = [(0, 0), (0, 1), (1, 0)]  # of the 16, in their order
    basis = scipy.fft.dct(np.eye(2), axis=0, norm="ortho")
    for j, function in enumerate(functions):
        u, v = there[j % 3]
        np.testing.assert_allclose(function, np.outer(basis[u], basis[v]), atol=1e-6)
    x, a = maps((1, 1))
    agree(gate, x, excited(a, a[:, :, 0, 0], weights(gate)))


def transform(a: Array, filters: Array, repeat: bool) -> Array:
    """Apply each group's filter with stride 2 until a side is 1, one step at a time."""
    per_channel = np.repeat(filters, a.shape[1] // len(filters), axis=0)
    while min(a.shape[2:]) > 1:
        if repeat:
            a = np.pad(a, [(0, 0), (0, 0), *((0, s % 2) for s in a.shape[2:])], mode="edge")
        height, width = (s // 2 for s in a.shape[2:])
        after = np.zeros((*a.shape[:2], height, width))
        for y, z in np.ndindex(height, width):
            patch = a[:, :, 2 * y : 2 * y + 2, 2 * z : 2 * z + 2]
            after[:, :, y, z] = (patch * per_channel).sum((2, 3))
        a = after
    result: Array = a.mean((2, 3))
    return result


@pytest.mark.parametrize("size", [*SIZES, (56, 56), (7, 28)])
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("filters", ["gram-schmidt", "haar"])
def test_wavenets_pool_is_the_transform_step_by_step(
    filters: str, repeat: bool, size: tuple[int, int]
) -> None:
    gate = trained("wavenet", filters=filters, repeat_edge=repeat)
    (x, a), w = maps(size), weights(gate)
    agree(gate, x, excited(a, transform(a, w["filters"], repeat), w))


@pytest.mark.parametrize(("channels", "sets"), [(64, 1), (512, 1), (768, 2), (2048, 4)])
def test_wavenets_filters_are_orthonormal_and_fixed_with_a_set_for_512_channels(
    channels: int, sets: int
) -> None:
    for kind in ("gram-schmidt", "haar"):
        gate: Any = fresh("wavenet", channels, filters=kind)
        vectors = gate.filters.reshape(sets, 4, 4)
        torch.testing.assert_close(vectors @ vectors.mT, torch.eye(4).expand(sets, 4, 4))
        assert "filters" in gate.state_dict()
        assert "filters" not in dict(gate.named_parameters())
        assert kind == "haar" or len(vectors.unique(dim=0)) == sets


def test_wavenets_random_filters_are_as_gram_schmidt_makes_them() -> None:
    gate: Any = fresh("wavenet")
    torch.manual_seed(0)
    for row, drawn in enumerate(torch.randn(4, 4)):
        vector = drawn.clone()
        for before in gate.filters.flatten(1)[:row]:
            vector -= (vector @ before) * before
        found = gate.filters[row].flatten()
        torch.testing.assert_close(found, vector / vector.norm(), rtol=1e-4, atol=1e-5)


def test_haars_first_filter_is_the_mean_times_2_a_step_and_of_56_sees_32() -> None:
    gate: Any = fresh("wavenet", filters="haar")
    torch.testing.assert_close(gate.composed(32, 32)[0], torch.full((32, 32), 1 / 32))
    x = torch.randn(1, 64, 56, 56)
    with torch.no_grad():
        outside = x.clone()
        outside[:, :, 32:] = outside[:, :, :, 32:] = 0
        seen = gate(outside)[:, :, :32, :32]
        torch.testing.assert_close(gate(x)[:, :, :32, :32], seen)
