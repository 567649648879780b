"""Gates, networks and trained runs in Python; docs/api.md shows each of them.

Mistakes are `base.errors.UserError`, whose text says what was expected, what came and what to do.
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attention_ablation.base.errors import UserError, unknown
from attention_ablation.base.io import Missing
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.detectors.record import check_fit
from attention_ablation.gates.build import build_gate
from attention_ablation.gates.record import Attention, seal
from attention_ablation.gates.source import builtin_gates
from attention_ablation.networks.build import build, build_front_end, initialise
from attention_ablation.networks.record import Backbone
from attention_ablation.runs.folder import SPEC, WEIGHTS, read_outcome, read_run
from attention_ablation.runs.records import read_sealed
from attention_ablation.spec.spec import AnySpec, FrontEndSpec, Spec
from attention_ablation.study.files import parse

# A name (`se`, `cbam`, or one that `attention-ablation gates` lists), a class in a file of one's
# own (`my_module.py:MyGate`, from the working folder), or an entry of a study's attentions.
Gate = str | Mapping[str, Any]
# CBAM's parts, which a study composes.
COMPOSED = {"se": {"pooling": "avg"}, "cbam": {"pooling": "avg&max", "descriptor": "pool"}}


def create_gate(
    gate: Gate,
    channels: int | Sequence[int],
    /,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """Return a gate, (N, C, H, W) -> the same, initialised from torch's global random stream.

    A `functools.partial(create_gate, "cbam")` is an `attn_layer` of timm. One that stands inside a
    block or over a stage is made with a list of channels; it gets as many maps and returns what
    replaces the last one. Options are a study's: `kernel=3`, `reduction=8`, `start="identity"` ...
    """
    attention = _attention(gate, options, "create_gate")
    several = attention.position in ("inside-block", "over-stage")
    if several == isinstance(channels, int):
        raise UserError(
            f"create_gate: expected {'a list of channels, one a map' if several else 'one number'} "
            f"for '{attention.slug}', which stands at {attention.position}, got {channels}."
        )
    device = device or torch.get_default_device()
    with torch.device("cpu"):  # where its random streams are
        try:
            made = build_gate(attention, channels if isinstance(channels, int) else list(channels))
        except ValueError as error:
            raise UserError(f"create_gate: {error}.") from None
        initialise(made, int(torch.randint(2**31, ())))
    return made.to(device=device, dtype=dtype)


def create_network(
    name: str,
    gate: Gate | None = None,
    *,
    classes: int = 1000,
    width: float = 1.0,
    stem: str | None = None,
    image_size: int = 224,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """Return a network of rows.csv, (N, 3, H, W) -> (N, classes), with a gate at all its places.

    It starts as a training of that seed does: two of one seed differ by their gates only.

    Args:
        width: factor on every layer's channels.
        stem: `cifar` for images of 32 px.
        image_size: px, for the few networks whose layers depend on it.
        options: the gate's, as in `create_gate`.
    """
    attention = _attention(gate or {}, options, "create_network")
    backbone = parse(Backbone, {"name": name, "width": width, "stem": stem}, "create_network")
    check_fit(attention, backbone, "create_network")
    network = build(backbone, attention, classes, image_size)
    initialise(network, seed)
    return network


def load_run(
    folder: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None
) -> nn.Module:
    """Return what a run's folder trained, a network or a detector, in evaluation mode on the CPU.

    A network takes images that are normalised as its data set says, (N, 3, H, W); a detector a list
    of images from 0 to 1, see `detectors.build.build_detector`, and normalises them. For a detector
    of a composed data set `data` is the folder of that; None: `data` beside the tier's folder.

    Raises UserError where the run has not finished, or its weights are gone or not as recorded.
    """
    folder = Path(folder).absolute()
    if not (folder / SPEC).is_file():
        raise UserError(
            f"{folder / SPEC}: there is no such spec; expected the folder of a run and a seed, "
            "such as results/quick/runs/<run id>/seed-0. `attention-ablation where` prints it."
        )
    run, outcome = read_run(folder / SPEC), read_outcome(folder)
    if outcome.metrics is None or outcome.status != "completed":
        raise UserError(
            f"{folder}: expected a completed run, whose weights can be loaded, but it is "
            f"{outcome.status}; train it first, or take another."
        )
    try:
        content = read_sealed(folder / WEIGHTS, outcome.metrics.weights_sha256)
    except Missing:
        raise UserError(
            f"{folder / WEIGHTS}: the run's weights are gone; published results have none. Train "
            "the run again."
        ) from None
    except UserError as error:
        raise UserError(f"{folder}: {error}; delete the folder and train the run again.") from None
    spec, attention = run.spec, getattr(run.spec, "attention", Attention())
    file, _, name = (attention.module or "").rpartition(":")
    if (kept := folder / Path(file).name).is_file():  # the run's own copy of a user's gate
        update = {"attention": attention.model_copy(update={"module": f"{kept}:{name}"})}
        spec = spec.model_copy(update=update)
    network = _untrained(spec, Path(data) if data else folder.parents[3] / "data")

    from attention_ablation.networks.published import load_weights  # and torchvision

    load_weights(network, torch.load(io.BytesIO(content), "cpu", weights_only=True), folder)
    return network.eval()


def _attention(gate: Gate, options: dict[str, Any], where: str) -> Attention:
    """Return the record of a gate, as a study would have it."""
    if not isinstance(gate, str):
        entry = {**gate, **options}
    elif gate in COMPOSED:
        entry = COMPOSED[gate] | options
    elif ":" in gate or gate in builtin_gates():
        start = {"start": options.pop("start")} if "start" in options else {}
        entry = {"module" if ":" in gate else "gate": gate, "options": options} | start
    else:
        raise unknown("gate", gate, [*COMPOSED, *builtin_gates()], where)
    return seal(parse(Attention, entry, where), Path(), where)


def _untrained(spec: AnySpec, data: Path) -> nn.Module:
    """Return a spec's network, detector or autoencoder, not yet initialised."""
    if isinstance(spec, FrontEndSpec):
        return build_front_end()
    network = spec.backbone, spec.attention
    if isinstance(spec, Spec):
        return build(*network, spec.recipe.dataset.classes, spec.recipe.dataset.image_size)

    from attention_ablation.detectors.build import build_detector

    dataset, colours = spec.recipe.dataset, {}
    if dataset.in_memory:  # image files are normalised as ImageNet's
        found = load(dataset, Folders(data, data))
        colours = {"mean": found.mean, "std": found.std}
    side, longest = dataset.image_size, dataset.longest_side
    return build_detector(spec.detector, *network, dataset.classes, side, longest, **colours)
