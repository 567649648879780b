"""A GPU that is pretended, with real numbers, to find out where a program waits for it."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

# A type of device that torch knows, and that needs no driver.
GPU = torch.device("lazy")
# They return a number to Python, or as many rows as the device alone knows.
WAITING = {"_local_scalar_dense", "equal", "masked_select", "nms", "nonzero", "_unique2"}


class OnGPU(Tensor):
    """A tensor on the CPU that says it is on the GPU; for use within PretendedGPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Self:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=GPU,
            requires_grad=held.requires_grad,
        )
        made.held = held.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise RuntimeError(f"expected {func} within PretendedGPU")


class PretendedGPU(TorchDispatchMode):
    """Counts operations by name, and what waits for the GPU by package and function.

    The function is the innermost of torchvision or this project. A number that is written through
    a mask is no wait: torch fills it in without knowing where.
    """

    def __enter__(self) -> Self:
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        # Python's numbers become tensors on the CPU, which are then seen on their way.
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        name = func.overloadpacket.__name__
        there: list[OnGPU] = []
        tree_map_only(OnGPU, there.append, (args, given))
        to_gpu = bool(there)
        if given.get("device") is not None:
            to_gpu = given["device"].type == GPU.type
            given["device"] = torch.device("cpu")
        self.operations[name] += 1
        if _waits(name, args, given, bool(there), to_gpu):
            self.waits[_place()] += 1
        plain_args, plain = tree_map_only(OnGPU, lambda x: x.held, (args, given))
        out = func(*plain_args, **plain)
        if name.endswith("_"):  # in place
            return args[0]
        return tree_map_only(Tensor, OnGPU, out) if to_gpu else out


def _waits(name: str, args: Any, kwargs: Any, from_gpu: bool, to_gpu: bool) -> bool:
    if name == "_to_copy":
        return from_gpu != to_gpu and not (to_gpu and kwargs.get("non_blocking"))
    if name == "copy_":
        here, there = (isinstance(x, OnGPU) for x in args[:2])
        return here != there and not (here and (*args, False)[2])
    if name in {"index", "index_put", "index_put_", "_unsafe_index"}:
        masks = [x for x in args[1] if x is not None and x.dtype in {torch.bool, torch.uint8}]
        return any(isinstance(x, OnGPU) for x in masks)
    return from_gpu and name in WAITING


def _place() -> str:
    frame: Any = sys._getframe(2)
    while frame:
        of = {"torchvision", "attention_ablation"} & {*Path(frame.f_code.co_filename).parts}
        if of:
            function = frame.f_code.co_qualname.split(".<locals>")[0]
            return f"{of.pop()}: {function}"
        frame = frame.f_back
    return "torch: backward"
