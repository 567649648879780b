"""Published weights: read, their names translated to ours, and held to the network.

Known are torchvision's names, which our networks without a gate share, and those of the authors'
code (github.com/Jongchan/attention-module).
"""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, get_weight, list_models

from attention_ablation.base.errors import UserError, few

State = dict[str, Tensor]
TORCHVISION = "torchvision:"
WRAPPERS = ("state_dict", "model")  # keys below which training scripts keep a network's state
# The authors' names of a gate's parts, and ours.
AUTHORS = {
    ".cbam.ChannelGate.mlp.1.": ".gate.0.attention.mlp.0.",
    ".cbam.ChannelGate.mlp.3.": ".gate.0.attention.mlp.2.",
    ".cbam.SpatialGate.spatial.conv.": ".gate.1.attention.conv.",
    ".cbam.SpatialGate.spatial.bn.": ".gate.1.attention.norm.",
}
UNUSED = "num_batches_tracked"  # by our BatchNorms; torch before 0.4.1 did not save it


@dataclass(frozen=True)
class Published:
    """What is published for weights: errors on ImageNet's validation set, %, and how measured."""

    title: str
    top1_error: float
    top5_error: float
    source: str
    resize: int | None = None  # shorter side before the crop of 224, px, where it is said


CBAM_RESNET50 = Published(
    "the authors' ResNet50 + CBAM, which other weights of that network in their names are not told "
    "apart from",
    top1_error=22.378,
    top5_error=6.052,
    source="their README: 77.622 % and 93.948 % accuracy after 100 epochs",
)
# What makes it that one: its classes, and six blocks in the third stage.
CBAM_RESNET50_SHAPES = {
    "fc.weight": (1000, 2048),
    "layer3.5.conv3.weight": (1024, 256, 1, 1),
    "layer3.6.conv3.weight": None,
}


def read_weights(name: str) -> tuple[State, Published | None]:
    """Return weights in our names, and what is published for them where they are known.

    `name` is a file's or torchvision's, as 'torchvision:ResNet50_Weights.IMAGENET1K_V1', whose
    weights are downloaded once. Raises UserError where there are none of a network.
    """
    if name.startswith(TORCHVISION):
        return _from_torchvision(name.removeprefix(TORCHVISION))
    path = Path(name)
    state = read_state(path)
    if not any(".cbam." in key for key in state):
        return state, _recognised(path)
    sizes = {key: tuple(value.shape) for key, value in state.items()}
    known = all(sizes.get(key) == size for key, size in CBAM_RESNET50_SHAPES.items())
    return _ours(state), CBAM_RESNET50 if known else None


def load_weights(model: nn.Module, state: Mapping[str, Tensor], where: object) -> None:
    """Load weights. Raises UserError that names what is missing, left over or of another shape."""
    expected = model.state_dict()
    faults = {
        "missing": [k for k in expected if k not in state and not k.endswith(UNUSED)],
        "left over": [key for key in state if key not in expected],
        "of another shape": [
            f"{key} is {tuple(state[key].shape)} and not {tuple(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{fault}: {few(names)}" for fault, names in faults.items() if names)
        raise UserError(f"{where}: expected the weights of this network, got others; {found}.")
    model.load_state_dict(expected | dict(state))


def read_state(path: Path) -> State:
    """Return a network's tensors by name. Raises UserError where a file holds no state."""
    try:
        data = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise UserError(f"{path}: it cannot be read: {error.strerror}.") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or ["it is empty"])[0]
        raise UserError(
            f"{path}: expected tensors saved by torch.save, which are read without running what "
            f"else is in the file, got: {reason}"
        ) from None
    if isinstance(data, dict):
        data = next((data[key] for key in WRAPPERS if isinstance(data.get(key), dict)), data)
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        raise UserError(
            f"{path}: expected a network's state, names with tensors, by itself or below "
            f"{' or '.join(repr(key) for key in WRAPPERS)}; this file holds something else."
        )
    # DataParallel puts 'module.' in front of every name.
    return {str(key).removeprefix("module."): value for key, value in data.items()}


def _ours(state: State) -> State:
    for theirs, ours in AUTHORS.items():
        state = {key.replace(theirs, ours): value for key, value in state.items()}
    return state


def _from_torchvision(name: str) -> tuple[State, Published]:
    try:
        weights: Any = get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(
            f"--weights: torchvision has no weights '{name}'; name them as "
            f"{TORCHVISION}ResNet50_Weights.IMAGENET1K_V1. ({error})"
        ) from None
    try:
        return weights.get_state_dict(check_hash=True, weights_only=True), _published(weights)
    except (OSError, RuntimeError) as error:  # no network, or not the digest in the name
        raise UserError(
            f"{weights.url}: it cannot be downloaded: {error}. Fetch it by other means and pass "
            "the file with --weights."
        ) from None


def _published(weights: Any) -> Published:
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]
    return Published(
        f"torchvision's {type(weights).__name__}.{weights.name}",
        top1_error=round(100 - accuracy["acc@1"], 3),
        top5_error=round(100 - accuracy["acc@5"], 3),
        source=weights.meta["recipe"],
        resize=weights.transforms().resize_size[0],
    )


def _recognised(path: Path) -> Published | None:
    # torchvision's files have the start of their digest in their names.
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for name in list_models(include=["resnet*", "resnext*", "wide_resnet*"]):
        for weights in get_model_weights(name):
            if digest.startswith(Path(weights.url).stem.rsplit("-", 1)[-1]):
                return _published(weights)
    return None
