"""A newcomer's network is one file: planned, built, counted and trained with gates."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

DENSENET = '''
"""DenseNet (Huang et al. 2017), torchvision's, with a gate on the output of each dense block."""

from collections import OrderedDict
from dataclasses import dataclass

from attention_ablation.networks.network import Network


@dataclass(frozen=True, kw_only=True)
class DenseNet(Network):
    """Layers of each dense block, and the channels that each layer adds."""

    family = "densenet"
    stages = ("features.gate1", "features.gate2")

    layers: tuple[int, int]
    growth: int = 32

    @property
    def convolutions(self):
        return 1 + 2 * sum(self.layers) + len(self.layers) - 1

    def narrowest(self, width):
        return int(self.growth * width)

    def places(self, width):
        growth = int(self.growth * width)
        first = 2 * growth + self.layers[0] * growth
        return {"block-end": [first, first // 2 + self.layers[1] * growth]}

    def build(self, backbone, gates, classes, image_size):
        from torch import nn
        from torchvision.models import densenet

        growth = int(self.growth * backbone.width)
        model = densenet.DenseNet(growth, self.layers, 2 * growth, num_classes=classes)
        parts, ends = OrderedDict(), gates.at("block-end")
        for name, part in model.features.named_children():
            parts[name] = part
            if name.startswith("denseblock"):
                parts[f"gate{name[-1]}"] = next(ends)
        model.features = nn.Sequential(parts)
        return model


NETWORKS = {"densenet-tiny": DenseNet(layers=(2, 2))}
'''
NEWCOMER = """
import json, sys
from attention_ablation.cost.rates import fastest
from attention_ablation.study.expand import load_plan
plan = load_plan({"study": "cbam", "tier": "tiny", "tables": ["table3"]})
specs = [plan.specs["table3", "densenet-tiny" + name] for name in ("", "+cbam")]
assert "torch" not in sys.modules

import torch
from attention_ablation.evidence.complexity import measure
from attention_ablation.networks.build import build, initialise
macs, steps = [], []
for spec in specs:
    found = measure(spec.backbone, spec.attention)
    model = build(spec.backbone, spec.attention, 1000)
    assert found.params == sum(p.numel() for p in model.parameters())
    initialise(model, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x, labels = torch.randn(4, 3, 64, 64), torch.arange(4)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0], losses
    assert list(model.stages) == ["features.gate1", "features.gate2"]
    macs.append(found.params)
    assert fastest(spec) > 0
print(json.dumps({"ids": [s.run_id for s in specs], "params": macs}))
"""


def test_a_network_is_one_new_file(project: Path) -> None:
    shutil.copytree(ROOT / "src/attention_ablation", project / "attention_ablation")
    (project / "attention_ablation/networks/families/newcomer.py").write_text(DENSENET)
    with (project / "workflow/studies/cbam/rows.csv").open("a") as rows:
        for name in ("none", "cbam"):
            rows.write(f"table3,Dense + {name},densenet-tiny,,{name},,,,,,,\n")
    done = subprocess.run(
        [sys.executable, "-c", NEWCOMER], env={"PYTHONPATH": str(project)}, cwd=project,
        text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    plain, gated = found["ids"]
    assert plain.startswith("densenet-tiny_none_")
    assert gated.startswith("densenet-tiny_channel+spatial-pool-k7-identity_")
    assert found["params"][1] > found["params"][0]
