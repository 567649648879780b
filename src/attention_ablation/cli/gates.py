"""List the package's gates: place, options, size, starting gain, label and paper."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attention_ablation.gates.record import Attention

HOST = "resnet50"
# Gates made of CBAM's parts, as study.yaml says them.
PARTS = {
    "SE, Hu et al. 2018, arXiv:1709.01507": {"pooling": "avg"},
    "CBAM, Woo et al. 2018, arXiv:1807.06521": {"pooling": "avg&max", "descriptor": "pool"},
}


def add_options(gates: argparse.ArgumentParser) -> None:
    """Add nothing: all are listed."""


def run(options: argparse.Namespace) -> None:
    """Print a line for each gate."""
    from tabulate import tabulate

    from attention_ablation.gates.record import Attention
    from attention_ablation.gates.source import builtin_gates

    lines = []
    for paper, parts in PARTS.items():
        said = ", ".join(f"{key}: {value}" for key, value in parts.items())
        lines.append(_line(said, Attention.model_validate(parts), "exact", paper))
    for name, gate in builtin_gates().items():
        attention = Attention(gate=name)
        lines.append(_line(f"gate: {name}", attention, gate.label or "control", gate.paper))
    widths = [20, None, 20, None, None, None, None, 22]  # narrow enough for a terminal
    print(tabulate(lines, headers="keys", disable_numparse=True, maxcolwidths=widths))
    bare = _line("", Attention(), "", "")["params"]
    print(
        f"\nparams: of ResNet50 with it; without {bare}. gain: what is left of noise behind an "
        "untrained gate.\nstart: whether study.yaml may say 'start: identity', twice the sigmoid. "
        "place: see\ndocs/your-own-module.md, which leads to a gate of your own. label: exact, "
        "equations and counts are\nthe authors'; reading, parts are ours; reconstruction, from the "
        "abstract alone; control, of no\npaper: it learns nothing."
    )


def _line(said: str, attention: "Attention", label: str, paper: str) -> dict[str, str]:
    from attention_ablation.evidence.complexity import measure
    from attention_ablation.evidence.gain import starting_gain
    from attention_ablation.networks.record import Backbone

    host = Backbone(name=HOST)
    options = ", ".join(f"{key} {value}" for key, value in (attention.options or {}).items())
    return {
        "in study.yaml": said,
        "place": attention.position,
        "options": options,
        "params": f"{measure(host, attention).params:,}",
        "gain": f"{starting_gain(host, attention):.2f}",
        "start": "yes" * attention.has_start,
        "label": label,
        "paper": paper,
    }
