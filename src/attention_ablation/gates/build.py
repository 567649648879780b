"""From a study's gate to a module: CBAM's, or of a class in a file of the package or a user."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from attention_ablation.base.errors import UserError, brief
from attention_ablation.gates.cbam import ParallelGate, SequentialGates, build_cbam
from attention_ablation.gates.record import Attention, read_module
from attention_ablation.gates.source import GAIN, Channels, Place, builtin_gates

Maps = Tensor | list[Tensor]


class FileGate(nn.Module):
    """A gate made by a class in a file: (N, C, H, W), or a list that ends with it -> (N, C, H, W).

    Its output must have the shape and dtype of its input: a residual block would broadcast an
    attention map alone, and single precision under autocast would spread to all that follows.
    """

    def __init__(self, attention: Attention, channels: Channels) -> None:
        super().__init__()
        self.attention = attention
        self.channels = channels
        self.gate = self._make()

    def restart(self, stream: int) -> None:
        """Make the gate anew on the CPU, its constructor drawing from a stream of its own."""
        # The stream of the training, from which dropout draws, stays where it was.
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would set the generators of GPUs as well.
            torch.default_generator.manual_seed(stream)
            self.gate = self._make()

    def forward(self, maps: Maps) -> Tensor:
        """Return what the gate makes of its maps. Raises UserError for another shape or dtype."""
        out: Tensor = self.gate(maps)
        x = maps if isinstance(maps, Tensor) else maps[-1]
        if out.shape != x.shape:
            raise UserError(
                f"{self.attention.source}: expected the shape that came in, {tuple(x.shape)}, got "
                f"{tuple(out.shape)}; return x times its attention, not the attention alone."
            )
        if out.dtype != x.dtype:
            raise UserError(
                f"{self.attention.source}: expected {x.dtype}, the dtype that came in, got "
                f"{out.dtype}; return x * weights.to(x.dtype)."
            )
        return out

    def _make(self) -> nn.Module:
        options, channels = dict(self.attention.options or {}), self.channels
        if self.attention.start == "identity":
            options[GAIN] = 2
        made = load_class(self.attention)
        try:
            return made(deepcopy(channels), **options)
        except (Exception, SystemExit) as error:
            given = "".join(f", {key}={value!r}" for key, value in options.items())
            raise UserError(
                f"{self.attention.source}: {made.__name__}({channels}{given}) fails: "
                f"{brief(error)}. `attention-ablation check` tries it with many numbers of "
                "channels."
            ) from error


GATES = (FileGate, ParallelGate, SequentialGates)  # what `build_gate` returns


class Gates:
    """The gates of one network, made while it is built, by the channels at each of its places."""

    def __init__(self, attention: Attention, places: Mapping[Place, Sequence[Channels]]) -> None:
        self.attention = attention
        self.places = places

    def at(self, place: Place) -> Iterator[nn.Module]:
        """Yield the module for each place in turn: an identity where the gate stands elsewhere."""
        for channels in self.places.get(place, ()):
            if self.attention.position == place:
                # What a network draws for its own weights does not depend on its gates.
                with torch.random.fork_rng(devices=[]):
                    gate = build_gate(self.attention, channels)
                yield gate
            else:
                yield nn.Identity()


def gates_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the gates of a network or detector."""
    return (part for part in model.modules() if isinstance(part, GATES))


def build_gate(attention: Attention, channels: Channels) -> nn.Module:
    """Return the gate that `attention` describes; no attention at all gives the identity.

    Raises ValueError as CBAM's parts do, and UserError where a class in a file cannot be made.
    """
    if attention.source:
        return FileGate(attention, channels)
    assert isinstance(channels, int)  # it stands at a block's end
    return build_cbam(attention, channels)


@cache
def load_class(attention: Attention) -> type[nn.Module]:
    """Return the class of a gate, its file run; a user's path counts from the working folder.

    Raises UserError where the file cannot be read or run, is not the one with the hash, or has no
    such module class.
    """
    if attention.gate is not None:
        module = import_module(f"{__package__}.{attention.gate}")
        own: type[nn.Module] = getattr(module, builtin_gates()[attention.gate].name)
        return own
    file, _, name = str(attention.module).rpartition(":")
    path = Path(file)
    source, digest, _ = read_module(attention, path, attention.module)
    namespace = ModuleType(f"{path.stem}_{digest[:10]}")
    namespace.__file__ = str(path)
    sys.modules[namespace.__name__] = namespace  # dataclasses and torch.compile look it up
    try:  # not imported: that might take an earlier version's bytecode
        exec(compile(source, path, "exec"), namespace.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[namespace.__name__]
        raise UserError(f"{path}: it does not run: {brief(error)}") from error
    found = vars(namespace).get(name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(
            f"{attention.module}: expected a class derived from torch.nn.Module, got {found!r}."
        )
    if (place := getattr(found, "place", "block-end")) != attention.position:
        raise UserError(
            f"{attention.module}: expected a gate at {attention.position}, as planned from its "
            f"file without running it, got one at {place}; write both the class and its place in "
            "that file."
        )
    return found
