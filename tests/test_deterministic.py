"""What a GPU refuses in deterministic mode, found on a CPU."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attention_ablation.base.errors import UserError
from attention_ablation.check.without_gpu import RefuseNondeterministic

FIRST = torch.zeros(2, 1, 1, 1, dtype=torch.long)
Function = Callable[[Tensor], Tensor]


def tried(function: Function) -> None:
    """Run a function of a map, forward and backward."""
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    with RefuseNondeterministic():
        function(x).sum().backward()


# From the documentation of torch.use_deterministic_algorithms.
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("_adaptive_avg_pool2d_backward", nn.AdaptiveAvgPool2d(2)),
        ("_adaptive_avg_pool3d_backward", nn.AdaptiveAvgPool3d(2)),
        ("adaptive_max_pool2d_backward", nn.AdaptiveMaxPool2d(1)),
        ("avg_pool3d_backward", nn.AvgPool3d(2)),
        ("fractional_max_pool2d_backward", nn.FractionalMaxPool2d(2, output_size=2)),
        ("max_unpool2d", lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
        ("reflection_pad2d_backward", nn.ReflectionPad2d(1)),
        ("upsample_linear1d_backward", lambda x: F.interpolate(x[0], 9, mode="linear")),
        ("grid_sampler_2d_backward", lambda x: F.grid_sample(x, x[..., :2], align_corners=True)),
        ("median.dim", lambda x: x.median(1).values),
        ("put", lambda x: x.put(torch.tensor([1]), torch.ones(1))),
        ("put", lambda x: x.clone().put_(torch.tensor([1]), torch.ones(1))),
        ("histc", lambda x: x + x.detach().histc().sum()),
        ("scatter.value_reduce", lambda x: x.scatter(1, FIRST, 2.0, reduce="add")),
        ("scatter_reduce.two of prod", lambda x: x.scatter_reduce(1, FIRST, x, "prod")),
        ("scatter_reduce.two of prod", lambda x: x.clone().scatter_reduce_(1, FIRST, x, "prod")),
        ("bincount with weights", lambda x: x + FIRST.flatten().bincount(torch.ones(2)).sum()),
    ],
)  # fmt: skip
def test_an_operation_that_a_gpu_refuses_is_named(name: str, function: Function) -> None:
    with pytest.raises(UserError, match=f"a GPU refuses {name} in deterministic mode"):
        tried(function)


@pytest.mark.parametrize(
    "function",
    [
        nn.AdaptiveAvgPool2d(1),
        nn.MaxPool2d(2),
        lambda x: x.amax((2, 3)),
        lambda x: x.topk(2, 1).values,
        lambda x: x[:, [0, 0, 1]],
        lambda x: x.flatten(1).cumsum(1),
        lambda x: x.scatter_add(1, FIRST, torch.ones_like(x)),
        lambda x: x.scatter_reduce(1, FIRST, torch.ones_like(x), "sum"),
        lambda x: x.scatter_reduce(1, FIRST, torch.ones_like(x), "amax"),
        lambda x: x + FIRST.flatten().bincount(minlength=3).sum(),
        lambda x: F.interpolate(x, scale_factor=2),
    ],
)
def test_operations_that_a_gpu_runs_pass(function: Function) -> None:
    tried(function)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x, 9, mode="bilinear"),
        nn.ReplicationPad2d(1),
    ],
)
def test_torch_replaces_some_gradients_which_are_therefore_not_refused(function: Function) -> None:
    tried(function)
    with FakeTensorMode(), torch.device("cuda"):
        nodes = [function(torch.randn(2, 4, 6, 6, requires_grad=True)).grad_fn]
        for node in nodes:  # grows
            nodes += [below for below, _ in node.next_functions if below] if node else []
    names = {type(node).__name__ for node in nodes}
    assert "AccumulateGrad" in names
    assert not [name for name in names if name.startswith(("Upsample", "Replication"))]
