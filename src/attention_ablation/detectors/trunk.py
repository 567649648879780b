"""A classification network's part that a detector goes on with, and its weights."""

from collections.abc import Mapping

from torch import Tensor, nn

from attention_ablation.base.errors import UserError
from attention_ablation.gates.record import Attention
from attention_ablation.networks.build import CLASSIFIERS, build
from attention_ablation.networks.record import Backbone


def build_trunk(backbone: Backbone, attention: Attention) -> nn.ModuleDict:
    """Return the network's children but for the classifier, under their own names."""
    network = build(backbone, attention, classes=1)
    parts = network.named_children()
    return nn.ModuleDict({name: part for name, part in parts if name not in CLASSIFIERS})


def load_trunk(trunk: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a classification network's weights and statistics; its classifier's are left out.

    Raises UserError where weights are missing, unknown or of another shape, naming the first.
    """
    own = trunk.state_dict()
    given = {name: value for name, value in state.items() if name.split(".")[0] not in CLASSIFIERS}
    missing = [f"lack '{name}'" for name in own if name not in given]
    unknown = [f"have '{name}', which it has not" for name in given if name not in own]
    misshapen = [
        f"have '{name}' as {tuple(given[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    for found in (missing, unknown, misshapen):
        if found:
            others = f" (and {len(found) - 1} like it)" if len(found) > 1 else ""
            raise UserError(
                f"the detector's backbone: the weights given {found[0]}{others}; take those of a "
                "classification run of the same backbone, attention and width."
            )
    trunk.load_state_dict(given)
