"""What a user's own gate must stand before networks are trained with it, one check at a time.

A check returns what it looked at, or raises Failed with what is wrong and what to do.
"""

import io
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils.flop_counter import FlopCounterMode

from attention_ablation.base.errors import UserError
from attention_ablation.check.findings import Failed, Result, result
from attention_ablation.check.without_gpu import RefuseNondeterministic, output_under_autocast
from attention_ablation.gates.gate import build_gate
from attention_ablation.gates.own import brief
from attention_ablation.gates.record import Attention
from attention_ablation.training.run import seed_everything

# Channels at the gates of the study's networks: MobileNet alpha 0.7 has 22 and 44, ResNet50 at full
# width 2048; a tier that shrinks networks goes down to 16.
CHANNELS = (16, 22, 64, 2048)
# Heights and widths: the last maps at 32 px are single places, those of cropped images odd.
SIZES = ((1, 1), (1, 2), (7, 7), (9, 14), (28, 28))
BATCH = 3
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
# bfloat16 has 8 bits of mantissa, and rounds at every layer.
BF16_TOLERANCE = 0.1


@dataclass(frozen=True)
class Subject:
    """The gate that is checked, and the numbers of channels to check it with."""

    attention: Attention
    channels: Sequence[int]
    device: torch.device

    def gate(self, channels: int, seed: int = 0) -> nn.Module:
        """Return the gate, its initial weights drawn from `seed`."""
        torch.manual_seed(seed)
        return build_gate(self.attention, channels).to(self.device)

    def trained(self, channels: int) -> nn.Module:
        """Return the gate after two steps, so that no weight is where it started."""
        gate = self.gate(channels).train()
        parameters = list(gate.parameters())
        for _ in range(2):
            gate.zero_grad()
            out = gate(self.maps(channels))
            if parameters:
                (out * torch.randn_like(out)).sum().backward()
            with torch.no_grad():
                for parameter in parameters:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return gate

    def maps(self, channels: int, size: tuple[int, int] = (9, 14), batch: int = BATCH) -> Tensor:
        """Return random feature maps, (batch, channels, *size)."""
        return torch.randn(batch, channels, *size, device=self.device)

    @property
    def usual(self) -> int:
        """The number of channels for the checks that need one only."""
        return min(self.channels, key=lambda channels: abs(channels - 64))


def check_gate(subject: Subject) -> Iterator[Result]:
    """Yield the result of each check, in order, up to a failed one that the others build on.

    They run in deterministic mode, as trainings do. It and torch's random states are then put back.
    """
    with torch.random.fork_rng(), _as_in_training(subject.device):
        for name, check in CHECKS.items():
            found = result(name, partial(check, subject))
            yield found
            if check in (made, shape) and not found.ok:
                return


@contextmanager
def _as_in_training(device: torch.device) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    seed_everything(0, device)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def made(subject: Subject) -> str:
    """Make it with every number of channels, twice, and compare the initial weights."""
    for channels in subject.channels:
        first, again = (subject.gate(channels).state_dict() for _ in range(2))
        for name, value in first.items():
            if not torch.equal(value, again[name]):
                raise Failed(
                    f"{name} starts otherwise under the same seed; draw initial weights with "
                    "torch's functions, not with random or numpy."
                )
    return f"with {_listed(subject.channels)} channels; the same seed gives the same weights"


def shape(subject: Subject) -> str:
    """Hold its output to the shape and kind of its input, which must stay as it is."""
    for channels in subject.channels:
        gate = subject.gate(channels).train()
        for size in SIZES:
            for layout, memory in FORMATS.items():
                x = subject.maps(channels, size).contiguous(memory_format=memory)
                before = x.clone()
                try:
                    with RefuseNondeterministic():
                        out = gate(x)
                except UserError:
                    raise
                except Exception as error:
                    raise Failed(
                        f"it fails on {tuple(x.shape)}, {layout}: {brief(error)}. Networks have "
                        "maps of any size, channels last in memory: fix no size, and use reshape "
                        "or flatten, not view."
                    ) from error
                if out.device != x.device:
                    raise Failed(f"expected a map on {x.device}, got one on {out.device}")
                if not torch.equal(x, before):
                    raise Failed(
                        "it changes its input in place, which the layer before may need for its "
                        "gradient; return a new tensor."
                    )
    return f"(N, C, H, W) kept, H and W from 1x1 to 28x28, odd ones too; {' and '.join(FORMATS)}"


def gradient(subject: Subject) -> str:
    """Look for finite gradients of the input and all parameters, by what no GPU refuses."""
    for size in SIZES:
        gate = subject.gate(subject.usual).train()
        x = subject.maps(subject.usual, size).requires_grad_()
        with RefuseNondeterministic():
            out = gate(x)
            (out * torch.randn_like(out)).sum().backward()
        for name, tensor in [("the input", x), *gate.named_parameters()]:
            if not tensor.requires_grad:
                continue
            if tensor.grad is None:
                raise Failed(
                    f"{name} gets no gradient; leave out what is not used, or set its "
                    "requires_grad to False."
                )
            if not tensor.grad.isfinite().all():
                raise Failed(f"{name} has a gradient that is not finite on maps of {size}.")
    count = sum(1 for _ in gate.parameters())
    tensors = f"{count} parameter tensor{'s' * (count != 1)}"
    return f"finite, of the input and of {tensors}; uses no operation known to be refused on a GPU"


def counted(subject: Subject) -> str:
    """Count it on the meta device, as tables do, and hold that to the parameters it has."""
    counts = []
    for channels in subject.channels:
        try:
            with torch.device("meta"):
                gate = build_gate(subject.attention, channels).eval()
                x = torch.empty(1, channels, 14, 14)
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                gate(x)
        except Exception as error:
            raise Failed(
                f"it cannot be counted on torch's meta device, which has shapes and no numbers: "
                f"{brief(error)}. Make tensors by torch's functions and do not read their values."
            ) from error
        params = sum(p.numel() for p in gate.parameters())
        if params != sum(p.numel() for p in subject.gate(channels).parameters()):
            raise Failed("its parameters are others when it is made a second time.")
        macs = counter.get_total_flops() // 2
        counts.append(f"C={channels}: {params:,} and {macs:,}")
    return "parameters, and multiply-accumulates of a 14x14 map: " + "; ".join(counts)


def precision(subject: Subject) -> str:
    """Compare bfloat16 autocast with single precision; look at dtypes as a GPU makes them."""
    gate = subject.trained(subject.usual).eval()
    on_gpu = "the input's dtype on a GPU too"
    for half in (torch.bfloat16, torch.float16):
        try:
            output_under_autocast(gate, (BATCH, subject.usual, 9, 14), half, half)
        except (DataDependentOutputException, DynamicOutputShapeException):
            on_gpu = "autocast on a GPU not tried: it reads values of the map"
        except UserError as error:
            raise Failed(f"under autocast on a GPU: {error}") from None
        except Exception as error:
            raise Failed(
                f"it fails on a GPU, tried with shapes alone: {brief(error)}. Keep tensors as "
                "parameters or buffers, and make others on the device of x."
            ) from error
    x = subject.maps(subject.usual).requires_grad_()
    exact = gate(x).detach()
    with torch.autocast(subject.device.type, torch.bfloat16):
        out = gate(x.bfloat16())
    out.float().sum().backward()
    if x.grad is None or not x.grad.isfinite().all() or not out.isfinite().all():
        raise Failed(
            "output or gradient is not finite under bfloat16 autocast; compute the part that "
            "overflows in x.float()."
        )
    off = float((out.float() - exact).abs().max() / exact.abs().max().clamp_min(1e-12))
    if off > BF16_TOLERANCE:
        raise Failed(
            f"bfloat16 autocast changes the output by {off:.0%} of its largest value; compute "
            "the sensitive part in x.float()."
        )
    return f"bfloat16 autocast: within {off:.2%} of the largest value of single precision; {on_gpu}"


def compiled(subject: Subject) -> str:
    """Compare torch.compile with the plain gate."""
    inductor = subject.device.type == "cuda" or any(map(shutil.which, ("c++", "g++", "clang++")))
    backend = "inductor" if inductor else "aot_eager"
    gate = subject.trained(subject.usual).eval()
    x = subject.maps(subject.usual)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says there is no GPU
    torch.compiler.reset()
    try:
        out = torch.compile(gate, backend=backend)(x)
    except Exception as error:
        raise Failed(
            f"torch.compile fails ({backend}): {brief(error)}. Trainings do not compile; mend it "
            "where you mean to."
        ) from error
    finally:
        torch.compiler.reset()
    if not torch.allclose(out, gate(x), rtol=1e-3, atol=1e-4):
        raise Failed(f"torch.compile ({backend}) gives another output; report it to PyTorch.")
    instead = "" if inductor else "; no C++ compiler is here, so no code was generated"
    return f"torch.compile, backend {backend}: the same output{instead}"


def saved(subject: Subject) -> str:
    """Save its state, load it into a new one as checkpoints are loaded, compare outputs."""
    gate, x = subject.trained(subject.usual).eval(), subject.maps(subject.usual)
    file = io.BytesIO()
    torch.save(gate.state_dict(), file)
    file.seek(0)
    other = subject.gate(subject.usual, seed=1).eval()
    try:
        other.load_state_dict(torch.load(file, weights_only=True, map_location=subject.device))
    except Exception as error:
        raise Failed(f"its saved state cannot be loaded again: {brief(error)}.") from error
    if not torch.equal(gate(x), other(x)):
        raise Failed(
            "with the loaded state it gives another output; a tensor that it keeps must be a "
            "parameter or a buffer (register_buffer), or a resumed training is another one."
        )
    return "state_dict with weights_only=True: the same output after loading"


def repeatable(subject: Subject) -> str:
    """Evaluate the same maps twice, and each image by itself."""
    gate, x = subject.trained(subject.usual).eval(), subject.maps(subject.usual)
    with torch.inference_mode():
        together, again = gate(x), gate(x)
        alone = torch.cat([gate(image[None]) for image in x])
    if not torch.equal(together, again):
        raise Failed(
            "in evaluation mode it gives another output for the same input; draw random numbers "
            "only where self.training is true, and keep no state from call to call."
        )
    if not torch.allclose(together, alone, rtol=1e-4, atol=1e-5):
        raise Failed(
            "in evaluation mode an image's output depends on the other images of its batch; use "
            "running statistics there, or none over the batch."
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


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
