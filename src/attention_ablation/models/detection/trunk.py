"""A classification network's part that a detector goes on with, and its weights."""

from collections.abc import Mapping

from torch import Tensor, nn

from attention_ablation.models.build import CLASSIFIERS, build
from attention_ablation.study.errors import UserError
from attention_ablation.study.spec import Attention, Backbone


def build_trunk(backbone: Backbone, attention: Attention) -> nn.ModuleDict:
    """Return the network's children but for the classifier, under their own names."""
    network = build(backbone, attention, classes=1)
    parts = network.named_children()
    return nn.ModuleDict({name: part for name, part in parts if name not in CLASSIFIERS})


def load_trunk(trunk: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a classification network's weights and statistics; its classifier's are left out.

    Raises UserError, naming one of them, where weights are missing, unknown or of another shape.
    """
    own = trunk.state_dict()
    given = {name: v for name, v in state.items() if name.split(".")[0] not in CLASSIFIERS}
    for what, names in (
        ("lack", [name for name in own if name not in given]),
        ("have besides", [name for name in given if name not in own]),
        (
            "have another shape of",
            [n for n in own if n in given and own[n].shape != given[n].shape],
        ),
    ):
        if names:
            raise UserError(
                f"expected the weights of the detector's own backbone, but those given {what} "
                f"'{names[0]}'{_shapes(own, given, names[0])} and {len(names) - 1} others; take "
                "those of a classification run of the same backbone, attention and width."
            )
    trunk.load_state_dict(given)


def _shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> str:
    if name not in own or name not in given:
        return ""
    return f", {tuple(given[name].shape)} for {tuple(own[name].shape)},"
