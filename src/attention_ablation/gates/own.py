"""A user's own gate: a class in a file of theirs, made like the gates of the package."""

import hashlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.gates.modules import check_digest, read_module
from attention_ablation.gates.record import Attention


class OwnGate(nn.Module):
    """A user's gate, whose output is held to the shape and the dtype of its input.

    An attention map alone, (N, C, 1, 1), would be broadcast by the addition that follows in a
    residual block, and the network would train as another one than was meant; and a map of single
    precision under autocast would make all maps that follow single precision.

    Shape: (N, C, H, W) -> the same.
    """

    def __init__(self, attention: Attention, channels: int) -> None:
        super().__init__()
        self.attention = attention
        self.channels = channels
        self.gate = _make(attention, channels)

    def restart(self, stream: int) -> None:
        """Make the gate anew on the CPU, its initial weights drawn from a stream of their own.

        They are those that its constructor gives it: what the authors' code does to convolutions
        and linear layers is for the gates of the paper.
        """
        # The stream of the training, from which dropout draws, stays where it was.
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would set the generators of GPUs as well.
            torch.default_generator.manual_seed(stream)
            self.gate = _make(self.attention, self.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the gate makes of `x`. Raises UserError for another shape or dtype."""
        out: Tensor = self.gate(x)
        if out.shape != x.shape:
            raise UserError(
                f"{self.attention.module}: expected the shape that came in, {tuple(x.shape)}, got "
                f"{tuple(out.shape)}; return x times its attention, not the attention alone."
            )
        if out.dtype != x.dtype:
            raise UserError(
                f"{self.attention.module}: expected {x.dtype}, the dtype that came in, got "
                f"{out.dtype}; return x * weights.to(x.dtype)."
            )
        return out


@cache
def load_class(module: str, sha256: str | None) -> type[nn.Module]:
    """Run a user's file and return the class in it; `module` is 'my_module.py:MyGate'.

    The path counts from the working folder. What runs is what was hashed: Python's import would
    take bytecode that it kept of an earlier version, where size and second of both agree.

    Raises UserError where the file cannot be read or run, is not the one with the hash, or has no
    such module class.
    """
    attention = Attention(module=module, module_sha256=sha256)
    path = Path(str(attention.module_file))
    source = read_module(path, module)
    digest = hashlib.sha256(source).hexdigest()
    check_digest(attention, digest, module)
    own = ModuleType(f"{path.stem}_{digest[:10]}")
    own.__file__ = str(path)
    sys.modules[own.__name__] = own  # dataclasses and torch.compile look it up
    try:
        exec(compile(source, path, "exec"), own.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[own.__name__]
        raise UserError(f"{path}: it does not run: {brief(error)}") from error
    found = vars(own).get(str(attention.module_class))
    if found is None:
        classes = [name for name, value in vars(own).items() if isinstance(value, type)]
        raise unknown("class", attention.module_class, classes, path)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"{module}: expected a class derived from torch.nn.Module, got {found!r}.")
    return found


def brief(error: BaseException) -> str:
    """Return an error in a line: its kind, its first line, and where in the user's file."""
    place = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = text.strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}".removesuffix(": ") + place


def _make(attention: Attention, channels: int) -> nn.Module:
    options: dict[str, Any] = attention.options or {}
    own = load_class(str(attention.module), attention.module_sha256)
    try:
        return own(channels, **options)
    except (Exception, SystemExit) as error:
        given = "".join(f", {key}={value!r}" for key, value in options.items())
        raise UserError(
            f"{attention.module_file}: {attention.module_class}({channels}{given}) fails: "
            f"{brief(error)}. `attention-ablation check` tries it with many numbers of channels."
        ) from error
