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
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from attention_ablation.runs.folder import SPEC, WEIGHTS, read_outcome, read_run
from attention_ablation.runs.records import read_sealed
from attention_ablation.spec.spec import AnySpec, Spec
from attention_ablation.study.files import parse

# A name (`se`, `cbam`, or a gate's that `attention-ablation gates` lists), a class in a file of
# one's own (`my_module.py:MyGate`, from the working folder), or keys as below a study's attentions.
Gate = str | Mapping[str, Any]
# CBAM's parts have no name in a study, which composes them.
COMPOSED = {"se": {"pooling": "avg"}, "cbam": {"pooling": "avg&max", "descriptor": "pool"}}
SEVERAL_MAPS = ("inside-block", "over-stage")


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

    As `functools.partial(create_gate, "cbam")` it is an `attn_layer` of timm.

    Args:
        channels: C; of a gate inside a block or over a stage, which gets a list of maps and returns
            the weighted last one, a list with each one's.
        options: as in a study: `kernel=3`, `reduction=8`, `start="identity"` ...

    Raises UserError or ValueError, in a sentence, for what does not fit.
    """
    attention = _attention(gate, options, "create_gate")
    if (attention.position in SEVERAL_MAPS) == isinstance(channels, int):
        expected = "a list of channels, one a map" if isinstance(channels, int) else "one number"
        raise UserError(
            f"create_gate: expected {expected} for '{attention.slug}', which stands at "
            f"{attention.position}, got {channels}."
        )
    with torch.device("cpu"):  # where its random streams are
        made = build_gate(attention, channels if isinstance(channels, int) else list(channels))
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
    """Return a network with a gate at each of its places, (N, 3, H, W) -> (N, classes).

    It starts as a training of that seed does: two of one seed differ by their gates only.

    Args:
        name: as in rows.csv, such as `resnet50`.
        width: factor on every layer's channels.
        stem: `cifar` for images of 32 px.
        image_size: px, for the few networks whose layers depend on it.
        options: the gate's, as in `create_gate`.
    """
    where = "create_network"
    attention = _attention(gate or {}, options, where)
    backbone = parse(Backbone, {"name": name, "width": width, "stem": stem}, where)
    check_fit(attention, backbone, where)
    network = build(backbone, attention, classes, image_size)
    initialise(network, seed)
    return network


def load_run(
    folder: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None
) -> nn.Module:
    """Return the trained network of a run's folder, in evaluation mode, on the CPU.

    A classifier takes images that are normalised as its data set says, (N, 3, H, W), and returns
    logits; a detector takes a list of images from 0 to 1 and returns boxes, scores and labels, see
    `detectors.build.build_detector`.

    Args:
        data: the folder of data sets, for a detector of a composed one, whose mean it normalises
            by; None: `data` beside the tier's folder.

    Raises UserError where the run has not finished, or its weights are gone or not as recorded.
    """
    folder = Path(folder).absolute()
    run, outcome = read_run(folder / SPEC), read_outcome(folder)
    if outcome.metrics is None or outcome.status != "completed":
        raise UserError(
            f"{folder}: expected a completed run, but it is {outcome.status}; train it first."
        )
    try:
        content = read_sealed(folder / WEIGHTS, outcome.metrics.weights_sha256)
    except Missing:
        raise UserError(
            f"{folder / WEIGHTS}: the run's weights are gone, which published results leave out; "
            "train the run again."
        ) from None
    except UserError as error:
        raise UserError(f"{folder}: {error}; delete the folder and train the run again.") from None
    spec, (file, _, name) = run.spec, (run.spec.attention.module or "").rpartition(":")
    if (kept := folder / Path(file).name).is_file():  # the run's own copy of a user's gate
        update = {"attention": spec.attention.model_copy(update={"module": f"{kept}:{name}"})}
        spec = spec.model_copy(update=update)
    network = _untrained(spec, Path(data) if data else folder.parents[3] / "data")

    from attention_ablation.networks.published import load_weights

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
    """Return a spec's network or detector, not yet initialised."""
    dataset = spec.recipe.dataset
    if isinstance(spec, Spec):
        return build(spec.backbone, spec.attention, dataset.classes, dataset.image_size)

    from attention_ablation.detectors.build import build_detector

    colours = {}
    if dataset.in_memory:  # image files are normalised as ImageNet's
        found = load(dataset, Folders(data, data))
        colours = {"mean": found.mean, "std": found.std}
    sizes = dataset.image_size, dataset.longest_side
    return build_detector(
        spec.detector, spec.backbone, spec.attention, dataset.classes, *sizes, **colours
    )
