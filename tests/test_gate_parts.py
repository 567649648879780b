"""Means and maxima of maps against torch's own: digits, gradients, and the memory they lie in."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attention_ablation.gates.parts import largest_of_map, mean_of_channels, mean_of_map

Part = Callable[[Tensor], Tensor]
CASES = [
    (mean_of_map, lambda x: x.mean((2, 3))),
    (mean_of_channels, lambda x: x.mean(1, keepdim=True)),
    (largest_of_map, lambda x: x.flatten(2).max(2).values),
]


def drawn() -> Tensor:
    """Return maps in channels-last memory, a third of whose values are equal."""
    x = torch.randn(3, 8, 5, 7, generator=torch.Generator().manual_seed(0)).clamp_min(-0.4)
    return x.to(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize(("ours", "torchs"), CASES)
def test_what_is_drawn_from_a_map_is_torchs_digit_for_digit_gradient_included(
    ours: Part, torchs: Part
) -> None:
    found, expected = drawn(), drawn()
    values = torchs(expected)
    given = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours(found), values)
    ours(found).backward(given)
    values.backward(given)
    assert found.grad is not None
    assert expected.grad is not None
    assert torch.equal(found.grad, expected.grad)


@pytest.mark.parametrize("of", [mean_of_map, mean_of_channels])
def test_the_gradient_of_a_mean_is_not_written_out(of: Part) -> None:
    x = drawn()
    values = of(x)
    (gradient,) = torch.autograd.grad(values, x, torch.ones_like(values))
    assert gradient.untyped_storage().nbytes() == values.nbytes


def test_the_gradient_of_a_maximum_lies_in_memory_as_the_map_does() -> None:
    x = drawn()
    (gradient,) = torch.autograd.grad(largest_of_map(x).sum(), x)
    assert gradient.stride() == x.stride()


def test_a_mean_in_half_precision_stays_finite_where_the_sum_does_not() -> None:
    x = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)
    assert x.sum().isinf()
    assert mean_of_map(x).item() == mean_of_channels(x).amax().item() == 100


def test_a_mean_over_no_image_is_empty() -> None:
    assert mean_of_map(torch.zeros(0, 8, 5, 7)).shape == (0, 8)
