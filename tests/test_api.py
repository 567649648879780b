"""The package in Python: gates, also in timm's networks, networks, trained runs, and its wheel."""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import attention_ablation
from attention_ablation import create_gate, create_network, load_run
from attention_ablation.base.errors import UserError
from attention_ablation.datasets.contract import load
from attention_ablation.gates.record import Attention
from attention_ablation.gates.source import builtin_gates
from attention_ablation.networks.build import build, initialise
from attention_ablation.networks.record import Backbone
from attention_ablation.runs.folder import DETECTIONS, WEIGHTS
from attention_ablation.study.config import Config
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.training.run import train
from tests.conftest import ROOT
from tests.machines import ONE_CPU, in_one
from tests.small_detection import alone, detection_plan, folder_of
from tests.small_detectors import count
from tests.test_own_gate import GATE, add_row


@pytest.mark.parametrize("name", ["se", "cbam", *builtin_gates()])
def test_every_gate_keeps_its_map_and_starts_from_torchs_stream(name: str) -> None:
    several = name in ("ba", "sda")
    channels = [64, 64] if several else 64
    x = torch.randn(2, 64, 7, 5)
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(create_gate(name, channels))
    assert made[0]([x, x] if several else x).shape == x.shape
    first, again, other = (
        torch.cat([p.flatten() for p in gate.parameters()] or [x[0, 0]]) for gate in made
    )
    assert torch.equal(first, again)
    assert name == "scale" or not torch.equal(first, other)


def test_names_and_options_are_those_of_a_study() -> None:
    # An MLP with biases of 256, 16 and 256 units; a 7x7 or 3x3 convolution of two maps; its norm.
    mlp = 2 * 256 * 16 + 16 + 256
    assert count(create_gate("se", 256)) == mlp
    assert count(create_gate("cbam", 256, kernel=7)) == mlp + 2 * 49 + 2
    assert count(create_gate("cbam", 256, kernel=3, norm=False)) == mlp + 2 * 9
    assert count(create_gate({"pooling": "max", "reduction": 8}, 256)) == 2 * 256 * 32 + 32 + 256
    assert count(create_gate("eca", 256, kernel=5)) == 5
    x = torch.randn(2, 64, 7, 7)
    no_weights = create_gate("eca", 64, start="identity")
    nn.init.zeros_(next(no_weights.parameters()))
    assert torch.equal(no_weights(x), x)


def test_device_and_dtype_are_taken() -> None:
    gate = create_gate("cbam", 64, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in gate.parameters()} == {("meta", torch.bfloat16)}
    with torch.device("meta"):
        assert next(create_gate("eca", 64).parameters()).is_meta


@pytest.mark.parametrize(
    ("name", "gate", "expansion", "more"),
    [("resnet18", "cbam", 1, 98 + 2), ("resnet26", "se", 4, 0)],
)
def test_a_gate_is_an_attention_layer_of_timms_networks(
    name: str, gate: str, expansion: int, more: int
) -> None:
    widths = (16, 32, 64, 128)
    make = partial(timm.create_model, name, num_classes=5, channels=widths)
    network = make(block_args={"attn_layer": partial(create_gate, gate, reduction=8)})
    ends = [expansion * width for width in widths for _ in range(2)]
    gates = sum(2 * c * (c // 8) + c // 8 + c + more for c in ends)
    assert count(network) == count(make()) + gates
    out = network(torch.randn(2, 3, 64, 64))
    assert out.shape == (2, 5)
    out.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    on_meta = make(block_args={"attn_layer": partial(create_gate, "eca")}, device="meta")
    assert all(p.is_meta for p in on_meta.parameters())


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: create_gate("cbm", 64), "create_gate: unknown gate 'cbm'; did you mean 'cbam'?"),
    (lambda: create_gate("eca", 64, kernal=3), "unknown option 'kernal'; did you mean 'kernel'?"),
    (lambda: create_gate("se", 64, kernel=3), "'kernel' has no meaning without descriptor"),
    (lambda: create_gate("cbam", 8), "create_gate: expected a reduction of at most the 8 channels"),
    (lambda: create_gate("ba", 64), "expected a list of channels, one a map for 'ba', which st"),
    (lambda: create_gate("eca", [64]), r"expected one number for 'eca', .* got \[64\]"),
    (lambda: create_gate("a.py:A", 64), "create_gate: expected the gate's class in a.py"),
    (lambda: create_network("resnet5"), "create_network: name: unknown backbone 'resnet5'"),
    (lambda: create_network("mobilenet", "sda"), "expected a gate that stands at block-end"),
    (lambda: create_network("resnet18", "se", width=0.05), "expected a reduction of at most 3"),
    (lambda: create_network("resnet18", kernel=3), "'kernel' has no meaning without descriptor"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_a_mistake_is_a_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_a_network_starts_as_a_training_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_module.py").write_text(GATE)
    made = create_network("resnet18", "cbam", classes=7, width=0.25, seed=3, start="identity")
    gate = Attention(pooling="avg&max", descriptor="pool", start="identity")
    expected = build(Backbone(name="resnet18", width=0.25), gate, 7)
    initialise(expected, 3)
    assert_equal(made.state_dict(), expected.state_dict())
    small = partial(create_network, "resnet18", width=0.25, stem="cifar")
    named, keys = small("eca", kernel=3), small({"gate": "eca", "options": {"kernel": 3}})
    assert_equal(named.state_dict(), keys.state_dict())
    assert count(small("my_module.py:MyGate", reduction=4)) > count(small("my_module.py:MyGate"))
    assert small()(torch.randn(2, 3, 32, 32)).shape == (2, 1000)


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.fixture
def trained(
    project: Path, monkeypatch: pytest.MonkeyPatch, deterministic: None
) -> tuple[Plan, Path, dict[str, Any]]:
    """A finished run with a gate of a user's own, whose file is gone but for the run's copy."""
    monkeypatch.chdir(project)
    add_row(project)
    Path("my_module.py").write_text(GATE)
    plan = load_plan(Config(study="cbam", tier="tiny", tables=["table3"]))
    (run,) = plan.row_runs("table3", "resnet50+mine")
    folder = folder_of(plan, run)
    (folder / "spec.json").write_text(run.canonical())
    metrics = train(run, folder, in_one(plan.data_folder), ONE_CPU)
    Path("my_module.py").unlink()
    return plan, folder, metrics


def test_a_run_is_loaded_as_it_was_evaluated_and_only_whole(
    trained: tuple[Plan, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder, metrics = trained
    network = load_run(folder)
    assert not network.training
    data = load(plan.specs["table3", "resnet50+mine"].recipe.dataset, in_one(plan.data_folder))
    images = (data.validation.images / 255 - data.mean) / data.std
    with torch.inference_mode():
        logits = network(images.expand(-1, 3, -1, -1)).numpy()
    wrong = logits.argmax(1) != data.validation.labels.numpy()
    assert 100 * wrong.mean() == pytest.approx(metrics["validation_top1_error"])
    terms = np.log(np.exp(logits).sum(1)) - logits[range(len(logits)), data.validation.labels]
    assert terms.mean() == pytest.approx(metrics["validation_loss"], rel=1e-4)

    # The guide's examples, on this run.
    guide = (ROOT / "docs/api.md").read_text()
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL))
    exec(re.sub(r"results/quick/runs/[^\"]+", str(folder), code), {"__name__": "guide"})

    weights = folder / WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"?")
    with pytest.raises(UserError, match=r"weights.pt has not the digest that was recorded; delete"):
        load_run(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"weights.pt: the run's weights are gone"):
        load_run(folder)
    for name in ("metrics.json", "result.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"expected a completed run, .* but it is missing; train"):
        load_run(folder)
    with pytest.raises(UserError, match=r"there is no such spec"):
        load_run(folder.parent)


def test_a_detector_is_loaded_and_finds_what_the_training_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch, deterministic: None
) -> None:
    monkeypatch.chdir(project)
    plan = detection_plan(project)
    run = alone(plan, "table6", "resnet18+faster-rcnn+cbam")
    folder = folder_of(plan, run)
    (folder / "spec.json").write_text(run.canonical())
    train(run, folder, in_one(plan.data_folder), ONE_CPU)
    network = load_run(folder)
    with np.load(folder / DETECTIONS) as kept, torch.inference_mode():
        for i in range(2):
            (found,) = network([torch.from_numpy(kept[f"image_{i}"]) / 255])
            for name in ("boxes", "scores", "labels"):
                assert np.allclose(found[name], kept[f"found_{name}_{i}"], atol=1e-3), name


def test_the_package_has_no_other_name() -> None:
    with pytest.raises(AttributeError, match="'attention_ablation' has no attribute 'create_gat'"):
        _ = attention_ablation.create_gat


USE = """
import sys

import attention_ablation

print(attention_ablation.__file__, "torch" in sys.modules)
import torch

from attention_ablation.cli.main import main

attention_ablation.create_gate("cbam", 32)(torch.randn(1, 32, 4, 4))
network = attention_ablation.create_network("resnet18", "ba", width=0.25, classes=3)
print(tuple(network(torch.randn(2, 3, 32, 32)).shape))
main(["--help"])
"""


def test_the_wheel_is_built_and_works_without_the_repository(tmp_path: Path) -> None:
    source, target, empty = (tmp_path / name for name in ("source", "target", "empty"))
    empty.mkdir()
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(made, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    put = [*pip, "install", "--no-index", "--no-deps", "--no-compile", "--target", target, wheel]
    subprocess.run(put, check=True)
    assert (target / "attention_ablation/py.typed").is_file()
    assert (target / "attention_ablation/report/page/report.css").is_file()
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=empty, text=True, capture_output=True,
        env={"PYTHONPATH": f"{target}:{sysconfig.get_path('purelib')}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, usage, *_ = done.stdout.splitlines()
    assert first == f"{target / 'attention_ablation/__init__.py'} False"
    assert second == "(2, 3)"
    assert usage.startswith("usage: attention-ablation")
