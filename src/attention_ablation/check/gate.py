"""What a user's own gate must stand before networks are trained with it, one check at a time.

A check returns what it looked at, or raises UserError with what is wrong and what to do.
"""

import io
import logging
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from operator import itemgetter
from typing import NoReturn

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils.flop_counter import FlopCounterMode

from attention_ablation.base.errors import UserError, brief
from attention_ablation.check.subject import BATCH, Subject, each, listed
from attention_ablation.check.without_gpu import RefuseNondeterministic, output_under_autocast
from attention_ablation.gates.build import build_gate
from attention_ablation.training.run import seed_everything

# Channels at the gates of the study's networks: MobileNet alpha 0.7 has 22 and 44, ResNet50 at full
# width 2048; a tier that shrinks networks goes down to 16.
CHANNELS = (16, 22, 64, 2048)
# Heights and widths: the last maps at 32 px are single places, those of cropped images odd.
SIZES = ((1, 1), (1, 2), (7, 7), (9, 14), (28, 28))
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
# bfloat16 has 8 bits of mantissa, and rounds at every layer.
BF16_TOLERANCE = 0.1


@dataclass(frozen=True)
class Result:
    """A check with what it looked at, or with what is wrong and what to do."""

    name: str
    ok: bool
    text: str


class CtrlC(KeyboardInterrupt):
    """The user's, not one that the checked code raises."""


def check_gate(subject: Subject) -> Iterator[Result]:
    """Yield the result of each check, in order, up to a failed one that the others build on."""
    with torch.random.fork_rng(), _as_in_training(subject.device):
        for name, check in CHECKS.items():
            found = _result(name, partial(check, subject))
            yield found
            if check in (made, shape) and not found.ok:
                return


@contextmanager
def _as_in_training(device: torch.device) -> Iterator[None]:
    """Be deterministic, and make a SIGINT CtrlC; then as before."""

    def interrupt(*_: object) -> NoReturn:
        raise CtrlC

    deterministic = torch.are_deterministic_algorithms_enabled()
    seed_everything(0, device)
    handler = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        torch.use_deterministic_algorithms(deterministic)


def _result(name: str, check: Callable[[], str]) -> Result:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's about its own insides
            return Result(name, True, check())
    except CtrlC:
        raise
    except UserError as error:
        return Result(name, False, str(error))
    except BaseException as error:  # the user's code may call sys.exit
        return Result(name, False, f"it fails: {brief(error)}. Mend that in the class.")


def require(holds: object, advice: str) -> None:
    """Raise UserError with the advice where something does not hold."""
    if not holds:
        raise UserError(advice)


@contextmanager
def failing(advice: str) -> Iterator[None]:
    """Turn an exception within into a UserError; '{}' in the advice is the exception."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(advice.format(brief(error))) from error


def made(subject: Subject) -> str:
    """Make it with every number of channels, twice, and compare the initial weights."""
    for channels in subject.variants:
        first, again = (subject.gate(channels).state_dict() for _ in range(2))
        for name, value in first.items():
            require(
                torch.equal(value, again[name]),
                f"{name} starts otherwise under the same seed; draw initial weights with torch's "
                "functions, not with random or numpy.",
            )
    made_with = ", ".join(map(str, subject.variants))
    return f"with {made_with} channels; the same seed gives the same weights"


def shape(subject: Subject) -> str:
    """Hold its output to the shape and dtype of its input, which must stay as it is."""
    for channels in subject.variants:
        gate = subject.gate(channels).train()
        for size, layout in product(SIZES, FORMATS):
            to_layout = partial(Tensor.contiguous, memory_format=FORMATS[layout])
            maps = each(subject.maps(channels, size), to_layout)
            before = [x.clone() for x in listed(maps)]
            shapes = ", ".join(str(tuple(x.shape)) for x in before)
            advice = (
                f"it fails on {shapes}, {layout}: {{}}. Networks have maps of any size, channels "
                "last in memory: fix no size, and use reshape or flatten, not view."
            )
            with RefuseNondeterministic(), failing(advice):
                out = gate(maps)
            there = before[-1].device
            require(out.device == there, f"expected a map on {there}, got one on {out.device}")
            require(
                all(map(torch.equal, listed(maps), before)),
                "it changes its input in place, which the layer before may need for its gradient; "
                "return a new tensor.",
            )
    return f"(N, C, H, W) kept, H and W from 1x1 to 28x28, odd ones too; {' and '.join(FORMATS)}"


def gradient(subject: Subject) -> str:
    """Require finite gradients of the input and all parameters, by what no GPU refuses."""
    for size in SIZES:
        gate = subject.gate(subject.usual).train()
        maps = each(subject.maps(size=size), Tensor.requires_grad_)
        with RefuseNondeterministic():
            out = gate(maps)
            (out * torch.randn_like(out)).sum().backward()
        parameters = [(n, p) for n, p in gate.named_parameters() if p.requires_grad]
        for name, tensor in [*(("the input", x) for x in listed(maps)), *parameters]:
            if tensor.grad is None:
                raise UserError(
                    f"{name} gets no gradient; leave out what is not used, or set its "
                    "requires_grad to False."
                )
            require(
                tensor.grad.isfinite().all(),
                f"{name} has a gradient that is not finite on maps of {size}; keep roots, "
                "logarithms and divisions away from 0, as (x + 1e-6).sqrt().",
            )
    count = len(list(gate.parameters()))
    tensors = f"{count} parameter tensor{'s' * (count != 1)}"
    return f"finite, of the input and of {tensors}; uses no operation known to be refused on a GPU"


def counted(subject: Subject) -> str:
    """Count it on the meta device, as tables do, and hold that to the parameters it has."""
    counts = []
    for channels in subject.variants:
        with failing(
            "it cannot be counted on torch's meta device, which has shapes and no numbers: {}. "
            "Make tensors by torch's functions and do not read their values."
        ):
            with torch.device("meta"):
                gate = build_gate(subject.attention, channels).eval()
                maps = each(subject.shapes(channels, 1, (14, 14)), torch.empty)
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                gate(maps)
        params, again = (
            sum(p.numel() for p in g.parameters()) for g in (gate, subject.gate(channels))
        )
        require(params == again, "its parameters are others when it is made a second time.")
        counts.append(f"C={channels}: {params:,} and {counter.get_total_flops() // 2:,}")
    return "parameters, and multiply-accumulates of a 14x14 map: " + "; ".join(counts)


def precision(subject: Subject) -> str:
    """Compare bfloat16 autocast with single precision; check dtypes as a GPU makes them."""
    gate, maps = subject.trained(), each(subject.maps(), Tensor.requires_grad_)
    on_gpu = "the input's dtype on a GPU too"
    shapes = each(maps, lambda x: x.shape)
    for half in (torch.bfloat16, torch.float16):
        with failing(
            "it fails on a GPU, tried with shapes alone: {}. Keep tensors as parameters or "
            "buffers, and make others on the device of x."
        ):
            try:
                output_under_autocast(gate, shapes, half, half)
            except (DataDependentOutputException, DynamicOutputShapeException):
                on_gpu = "autocast on a GPU not tried: it reads values of the map"
            except UserError as error:
                raise UserError(f"under autocast on a GPU: {error}") from None
    exact = gate(maps).detach()
    with torch.autocast(subject.device.type, torch.bfloat16):
        out = gate(each(maps, Tensor.bfloat16))
    out.float().sum().backward()
    gradients = [x.grad for x in listed(maps)]
    require(
        all(found is not None and found.isfinite().all() for found in [*gradients, out]),
        "output or gradient is not finite under bfloat16 autocast; compute the part that "
        "overflows in x.float().",
    )
    off = float((out.float() - exact).abs().max() / exact.abs().max().clamp_min(1e-12))
    require(
        off <= BF16_TOLERANCE,
        f"bfloat16 autocast changes the output by {off:.0%} of its largest value; compute the "
        "sensitive part in x.float().",
    )
    return f"bfloat16 autocast: within {off:.2%} of the largest value of single precision; {on_gpu}"


def compiled(subject: Subject) -> str:
    """Compare torch.compile with the plain gate."""
    inductor = subject.device.type == "cuda" or any(map(shutil.which, ("c++", "g++", "clang++")))
    backend = "inductor" if inductor else "aot_eager"
    gate, maps = subject.trained(), subject.maps()
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says there is no GPU
    torch.compiler.reset()
    try:
        with failing(
            f"torch.compile fails ({backend}): {{}}. A recipe with 'compile' would run it as it "
            "is; mend it where it is to be fast."
        ):
            out = torch.compile(gate, backend=backend)(maps)
    finally:
        torch.compiler.reset()
    require(
        torch.allclose(out, gate(maps), rtol=1e-3, atol=1e-4),
        f"torch.compile ({backend}) gives another output; report it to PyTorch.",
    )
    instead = "" if inductor else "; no C++ compiler is here, so no code was generated"
    return f"torch.compile, backend {backend}: the same output{instead}"


def saved(subject: Subject) -> str:
    """Save its state, load it into a new one as checkpoints are loaded, compare outputs."""
    gate, maps = subject.trained(), subject.maps()
    file = io.BytesIO()
    torch.save(gate.state_dict(), file)
    file.seek(0)
    other = subject.gate(subject.usual, seed=1).eval()
    with failing("its saved state cannot be loaded again: {}."):
        other.load_state_dict(torch.load(file, weights_only=True, map_location=subject.device))
    require(
        torch.equal(gate(maps), other(maps)),
        "with the loaded state it gives another output; a tensor that it keeps must be a parameter "
        "or a buffer (register_buffer), or a resumed training is another one.",
    )
    return "state_dict with weights_only=True: the same output after loading"


def repeatable(subject: Subject) -> str:
    """Evaluate the same maps twice, and each image by itself."""
    gate, maps = subject.trained(), subject.maps()
    with torch.inference_mode():
        together, again = gate(maps), gate(maps)
        images = [each(maps, itemgetter(slice(i, i + 1))) for i in range(BATCH)]
        alone = torch.cat([gate(image) for image in images])
    require(
        torch.equal(together, again),
        "in evaluation mode it gives another output for the same input; draw random numbers only "
        "where self.training is true, and keep no state from call to call.",
    )
    require(
        torch.allclose(together, alone, rtol=1e-4, atol=1e-5),
        "in evaluation mode an image's output depends on the other images of its batch; use "
        "running statistics there, or none over the batch.",
    )
    return "evaluation gives the same twice, and an image's output is its own"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "made": made,
    "shape": shape,
    "gradient": gradient,
    "counted": counted,
    "precision": precision,
    "compile": compiled,
    "save and load": saved,
    "evaluation": repeatable,
}
