"""From a spec's backbone and attention to an initialised network."""

import hashlib
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from attention_ablation.gates.build import FileGate, Gates, gates_of
from attention_ablation.gates.record import Attention
from attention_ablation.networks.lpae import Autoencoder, Classifier
from attention_ablation.networks.record import Backbone

CLASSIFIERS = ("fc", "classifier")  # the last layer's name in our networks
# The 1x1 convolution of a residual network's shortcut, by torchvision's and the authors' name.
SHORTCUT = ".downsample.0"


def build(
    backbone: Backbone, attention: Attention, classes: int, image_size: int = 224
) -> nn.Module:
    """Return the network, not yet initialised: (N, 3, H, W) -> (N, classes).

    Its `stages` are the modules with feature maps, by name; with a front-end it has none, and in
    training returns both its logits, (2, N, classes). Raises ValueError where a gate does not
    fit the backbone's channels or has no place in it.
    """
    network, places = backbone.network, backbone.places
    if attention != Attention() and attention.position not in places:
        there = f"attention at {' or '.join(places)}" if places else "no attention"
        raise ValueError(f"expected {there} in {backbone.name}, got '{attention.slug}'")
    if backbone.front_end:
        return _own_init(partial(Classifier, backbone, classes))
    make = partial(network.build, backbone, Gates(attention, places), classes, image_size)
    model: nn.Module = _own_init(make) if network.own_init else make()
    # What Grad-CAM may explain; not a part of its state.
    model.stages = {name: model.get_submodule(name) for name in network.stages}  # type: ignore[assignment]
    return model


def build_front_end() -> nn.Module:
    """Return the autoencoder that is trained before its classifiers, not yet initialised."""
    return _own_init(Autoencoder)


def _own_init(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a network that `initialise` starts as its constructor does."""
    model = make()
    model.make = make  # type: ignore[assignment]
    return model


@torch.no_grad()
def initialise(model: nn.Module, seed: int, *, zero_init_residual: bool = False) -> None:
    """Initialise as the authors' code does, each weight from a stream of its own.

    Convolutions: Kaiming normal, fan-out, but for those of shortcuts: the authors do so where a
    name has 'conv' in it, and a shortcut's is 'downsample.0'. These, and the linear layers of
    gates: Kaiming uniform with slope sqrt(5), torch's default. The classifier: Kaiming normal,
    fan-in. Biases: 0. BatchNorm stays as it was made; `zero_init_residual` starts those that end a
    residual block, or branches of a gate at its end (`last_norms`), at 0. Those apart, a gate of a
    class in a file keeps what its constructor gives it, and so does, gates apart, a network that
    starts by its own rule (`own_init`).

    A stream depends on the seed and the weight's name only: two networks of one seed start equal
    wherever their shapes agree.
    """
    kept: set[nn.Module] = set()
    if make := getattr(model, "make", None):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream(seed, "").initial_seed())
            model.load_state_dict(make().state_dict())
        kept = {*model.modules()} - {part for gate in gates_of(model) for part in gate.modules()}
    gates = {name: part for name, part in model.named_modules() if isinstance(part, FileGate)}
    for name, gate in gates.items():
        gate.restart(stream(seed, name).initial_seed())
    kept |= {part for gate in gates.values() for part in gate.modules()}
    for name, module in model.named_modules():
        if module in kept:
            continue
        generator = stream(seed, name)
        if isinstance(module, nn.Conv2d) and not name.endswith(SHORTCUT):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.Linear) and name in CLASSIFIERS:
            nn.init.kaiming_normal_(module.weight, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    for block in model.modules() if zero_init_residual else ():
        for norm in getattr(block, "last_norms", ()):
            nn.init.zeros_(norm.weight)


def stream(seed: int, name: str) -> torch.Generator:
    """Return the random stream of the weight called `name`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
