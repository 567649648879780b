"""Gates, or whole networks, compiled by torch.compile: fewer passes over a map, other rounding."""

import warnings
from typing import Any

import torch
from torch import nn

from attention_ablation.base.errors import UserError, brief
from attention_ablation.gates.build import FileGate, gates_of

# Of one function: 27 gates of as many sizes, in training and in evaluation, with a last batch.
MOST_SHAPES = 256


class Compiled:
    """Compiles a network, or its gates, when they are first called with a shape.

    Parameters, their names and hooks stay as they are. Compiled code is kept on the machine, in
    TORCHINDUCTOR_CACHE_DIR, so that the next run of the same shapes takes it from there.

    `works`: whether all of it was compiled so far; what could not be runs as it is, with a warning.
    """

    def __init__(self, model: nn.Module, which: str, *, sizes_vary: bool = False) -> None:
        """which: 'gates' or 'model'. sizes_vary: whether images have sizes of their own.

        Raises UserError where the machine has no compiler.
        """
        check_compiler(next(model.parameters()).device)
        import torch._dynamo

        torch._dynamo.config.recompile_limit = MOST_SHAPES
        torch._dynamo.config.accumulated_recompile_limit = 8 * MOST_SHAPES
        # torch's own doing while it traces; it is of no concern to a user.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        self.works = True
        parts = gates_of(model) if which == "gates" else iter([model])
        for part in parts:
            self._replace(part, dynamic=sizes_vary, fullgraph=which == "gates")

    def _replace(self, part: nn.Module, **options: Any) -> None:
        eager = part.forward
        fast = torch.compile(eager, **options)

        def forward(*args: Any) -> Any:
            if self.works:
                try:
                    return fast(*args)
                except torch._dynamo.exc.TorchDynamoException as error:
                    self.works = False
                    reason = brief(getattr(error, "inner_exception", error))
                    what = f"{name_of(part)} cannot be compiled and runs as it is"
                    print(f"warning: {what}: {reason}", flush=True)
            return eager(*args)

        # Not Module.compile, which would compile the hooks of Grad-CAM and of several processes.
        part.forward = forward


def name_of(part: nn.Module) -> str:
    """Return what a user calls a part: the gate's class in its file, or its own class."""
    return str(part.attention.source) if isinstance(part, FileGate) else type(part).__name__


def check_compiler(device: torch.device) -> None:
    """Raise UserError where torch.compile cannot make code for a device."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise UserError(
                "recipe.compile: expected triton, which makes code for a GPU of at least CUDA "
                "capability 7.0, and found none that works; install torch for CUDA, or leave "
                "'compile' out."
            )
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:  # torch raises kinds of its own
        raise UserError(
            "recipe.compile: expected a C++ compiler, g++ or the one that CXX names, and found "
            "none; install one (Debian: apt install g++), or leave 'compile' out."
        ) from None
