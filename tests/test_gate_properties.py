"""Every gate of the package passes the checks that a user's has to, and trains in every host."""

import pytest
import torch
from torch import nn

from attention_ablation.check.gate import check_gate
from attention_ablation.check.subject import Subject
from attention_ablation.cli.main import main
from attention_ablation.evidence.gain import starting_gain
from attention_ablation.gates.build import build_gate
from attention_ablation.gates.record import Attention
from attention_ablation.gates.source import builtin_gates
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone

GATES = sorted(builtin_gates())
ZOO = {"bam", "eca", "gc", "cra", "ba", "sda", "fca", "wavenet", "cat", "sca", "da2", "scale"}
# As the fact sheets of the papers have them; CRA's depends on its random filters.
GAINS = {
    **dict.fromkeys(("eca", "ba", "fca", "wavenet", "cat"), (0.5, 0.02)),
    **{"cra": (0.5, 0.05), "gc": (1.0, 0.001), "sca": (1.0, 0.05), "bam": (1.5, 0.05)},
    **{"da2": (1 / 3, 0.05), "scale": (0.5, 1e-6)},
}


def test_the_zoo_is_there() -> None:
    assert set(GATES) >= ZOO
    assert all(gate.label and gate.paper for n, gate in builtin_gates().items() if n != "scale")


@pytest.mark.parametrize("gate", GATES)
def test_it_passes_every_check(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiling without the C++ of it, which takes longer than all other checks together.
    monkeypatch.setattr("attention_ablation.check.gate.shutil.which", lambda _: None)
    # Of 16 channels and of 64: of a tier's narrow networks, a quarter of the hidden units.
    options = {"reduction": 4} if "reduction" in (builtin_gates()[gate].options or {}) else {}
    attention = Attention(gate=gate, options=options)
    found = list(check_gate(Subject(attention, (16, 64), torch.device("cpu"))))
    assert [result for result in found if not result.ok] == []
    assert len(found) == 8


@pytest.mark.parametrize("gate", sorted(GAINS))
def test_its_starting_gain_is_what_its_paper_says(gate: str) -> None:
    gain, tolerance = GAINS[gate]
    assert starting_gain(Backbone(name="resnet50"), Attention(gate=gate)) == pytest.approx(
        gain, abs=tolerance
    )
    if builtin_gates()[gate].has_start:
        identity = Attention(gate=gate, start="identity")
        found = starting_gain(Backbone(name="resnet50"), identity)
        assert found == pytest.approx(2 * gain, abs=2 * tolerance)


def test_the_starting_gain_of_the_parts_of_cbam_and_of_depth() -> None:
    host = Backbone(name="resnet18")
    assert starting_gain(host, Attention()) == 1
    assert starting_gain(host, Attention(pooling="avg")) == pytest.approx(0.5, abs=0.01)
    cbam = Attention(pooling="avg&max", descriptor="pool")
    assert starting_gain(host, cbam) == pytest.approx(0.25, abs=0.03)
    # The mean of a stage's two blocks, of which only the last one is what it is compared with.
    assert starting_gain(host, Attention(gate="sda")) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("gate", GATES)
def test_a_small_network_with_it_learns_a_batch_by_heart(gate: str) -> None:
    options = {"reduction": 4} if "reduction" in (builtin_gates()[gate].options or {}) else {}
    model = build(Backbone(name="resnet18", width=0.25), Attention(gate=gate, options=options), 4)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8) % 4
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    moved = [name for name, p in model.named_parameters() if p.grad is None]
    assert moved == []


@pytest.mark.parametrize("gate", [name for name in GATES if builtin_gates()[name].has_start])
def test_its_gain_is_a_factor_on_the_same_weights(gate: str) -> None:
    place = Attention(gate=gate).position
    channels = [16, 16, 64] if place == "inside-block" else 64
    sizes = channels if isinstance(channels, list) else [channels]
    maps = [torch.randn(2, c, 9, 9) for c in sizes]
    outputs = []
    for start in (None, "identity"):
        torch.manual_seed(0)
        made = build_gate(Attention(gate=gate, start=start), channels).eval()
        outputs.append(made(maps if isinstance(channels, list) else maps[-1]))
    torch.testing.assert_close(outputs[1], 2 * outputs[0])


def test_the_list_names_every_gate_with_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gates"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split("  ")[0].removeprefix("gate: "): line for line in lines if "  " in line}
    assert set(GATES) <= set(shown)
    assert "28,089,624" in shown["pooling: avg&max,"]  # the cell goes on in the next line
    assert "25,557,118" in shown["eca"]
    assert "inside-block" in shown["ba"]
    assert "reconstruction" in shown["da2"]
