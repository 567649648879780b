"""What a GPU does with a module, found out on a machine that has none."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from attention_ablation.base.errors import UserError
from attention_ablation.check.subject import each

# Operations on maps that CUDA refuses in deterministic mode, by their names in torch.ops.aten: of
# torch's documentation of use_deterministic_algorithms not losses, EmbeddingBag and what
# torch.nn.functional replaces; and max_pool3d, which torch 2.15 refuses as well. _refused adds two.
REFUSED = {
    *("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "avg_pool3d_backward", "max_pool3d_with_indices_backward"),
    *("fractional_max_pool2d_backward", "fractional_max_pool3d_backward"),
    *("max_unpool2d", "max_unpool3d", "median.dim", "nanmedian.dim", "histc", "put"),
    *("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward"),
    *("upsample_linear1d_backward", "_upsample_bilinear2d_aa_backward"),
    *("_upsample_bicubic2d_aa_backward", "grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    *("index_reduce", "scatter.reduce", "scatter.value_reduce"),
}


class RefuseNondeterministic(TorchDispatchMode):
    """Within it what CUDA refuses in deterministic mode is a UserError, on a CPU too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if refused := _refused(func, args):
            raise UserError(
                f"a GPU refuses {refused} in deterministic mode, in which trainings run (see "
                "torch's documentation of use_deterministic_algorithms); use another operation, "
                "such as x.flatten(2).max(2).values for AdaptiveMaxPool2d(1)."
            )
        return func(*args, **(kwargs or {}))


def _refused(func: Any, args: Sequence[Any]) -> str | None:
    name = func.overloadpacket.__name__.rstrip("_")
    overload = f"{name}.{func._overloadname}"
    # The documentation has scatter_reduce in both lists; torch's code refuses the product alone.
    if overload == "scatter_reduce.two" and args[4] == "prod":
        return f"{overload} of prod"
    if name == "bincount" and args[1:] and args[1] is not None:
        return f"{name} with weights"
    return next(iter(REFUSED & {name, overload}), None)


def output_under_autocast(
    module: nn.Module,
    shapes: Sequence[int] | list[Sequence[int]],
    dtype: torch.dtype,
    autocast: torch.dtype,
) -> Any:
    """Return what a module gives on a GPU under autocast: tensors with a dtype and no numbers.

    `shapes` is a list where it takes several maps of that dtype; `autocast` bfloat16 or float16.
    """
    # torch.autocast("cuda") turns itself off where there is no GPU.
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", autocast)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            tensors = chain(module.named_parameters(), module.named_buffers())
            state = {name: torch.empty_like(tensor, device="cuda") for name, tensor in tensors}
            maps = each(shapes, lambda shape: torch.empty(*shape, dtype=dtype, device="cuda"))
            return functional_call(module, state, (maps,))
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()
